"""The layer to which each parameter of a pretrained transformer belongs: for frozen parts and for rates by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from runner.common.arrays import IntArray
from runner.embeddings.pretrained_transformer.backbone import MOST_PIECES, PieceModel

# The number in the name of a parameter: `encoder.layer.3.output.dense.weight`, `layers.3.mlp...`, `h.3.ln_1.weight`
_LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h)\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:\w*embeddings\w*|embed_tokens|wte|wpe|table)\.")
_PART = re.compile(r"(\d+)(?:-(\d+))?")


def depth_of(name: str, n_layers: int) -> int:
    """Return the depth of a parameter, given its name: 0 in embeddings, i + 1 in layer i, n_layers + 1 elsewhere."""
    if found := _LAYER.search(name):
        return int(found[1]) + 1
    return 0 if _EMBEDDINGS.search(name) else n_layers + 1


def layers_in_turn(backbone: PieceModel, lengths: IntArray) -> Sequence[nn.Module]:
    """Return the layers of a transformer; none if it runs several times, or not at all, for rows of so many pieces."""
    if len(lengths) and lengths.min() > 0 and lengths.max() <= MOST_PIECES:
        return [
            part
            for name, part in backbone.named_modules()
            if (found := _LAYER.search(f"{name}.")) and found.end() > len(name)
        ]
    return []


def freeze(backbone: PieceModel, parts: Sequence[str | int]) -> None:
    """Freeze the parameters of these parts: `all`, `embeddings`, or layers such as `5` or `0-3`.

    Raises:
        ValueError: there is no part of this name.
    """
    frozen: set[int] = set()
    for part in map(str, parts):
        if part == "all":
            frozen |= {*range(backbone.n_layers + 2)}
        elif part == "embeddings":
            frozen.add(0)
        elif (found := _PART.fullmatch(part)) and int(found[2] or found[1]) < backbone.n_layers:
            frozen |= {layer + 1 for layer in range(int(found[1]), int(found[2] or found[1]) + 1)}
        else:
            last = backbone.n_layers - 1
            raise ValueError(
                f"frozen: {part!r} is none of all, embeddings, a layer from 0 to {last} or a range 0-{last}"
            )
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(depth_of(name, backbone.n_layers) not in frozen)


def factors_of(backbone: PieceModel, rate: float, decay: float, prefix: str) -> dict[str, float]:
    """Return the rate of each parameter as a multiple of the optimiser's, by name.

    From each layer to the one below it, the rate is multiplied by `decay` (Howard and Ruder 2018, section 3.2).
    """
    last = backbone.n_layers
    names = [name for name, _ in backbone.named_parameters()]
    depths = {name: min(depth_of(name, last), last) for name in names}
    return {prefix + name: rate * decay ** (last - depth) for name, depth in depths.items()}
