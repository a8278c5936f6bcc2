"""A copy of a model in which the parts that `torch.export` cannot trace are replaced by equal ones that it can.

- Recurrent kernels become one operation, `hydromel::recurrence`: torch would unroll them over a fixed number of steps.
  A file gets the kernel of its format in its place (`runner.export.formats`).
- Embeddings by characters read the characters of each token. In training they read ids of distinct forms, which are
  found on the host.
- Vectors that are stored as the bits of float16 become float32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from runner.compat.torch import cell_weights
from runner.embeddings.char import CharConv, CharRnn
from runner.embeddings.pretrained import PretrainedEmbedding
from runner.model import Model
from runner.ragged.ragged import Ragged
from runner.ragged.traced import TracedRows

NO_SYMBOL = -1  # in the symbols of a form that is shorter than the widest


@torch.library.custom_op("hydromel::recurrence", mutates_args=())
def recurrence(
    mode: str, inputs: Tensor, hidden: Tensor, memory: Tensor, weights: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in one direction: (B, T, D) and states (1, B, H) -> outputs (B, T, H) and the states at step T.

    Args:
        mode: `LSTM`, `GRU` or `RNN_TANH`.
        memory: the cell state of an LSTM; others return a copy of it.
        weights: w, u, b, c, as torch orders them.
    """
    if mode == "LSTM":
        outputs, hidden, memory = torch.lstm(inputs, (hidden, memory), weights, True, 1, 0.0, False, False, True)
        return outputs, hidden, memory
    run = torch.gru if mode == "GRU" else torch.rnn_tanh
    outputs, hidden = run(inputs, hidden, weights, True, 1, 0.0, False, False, True)
    return outputs, hidden, memory.clone()


@recurrence.register_fake
def _shapes(
    mode: str, inputs: Tensor, hidden: Tensor, memory: Tensor, weights: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = inputs.new_empty(inputs.shape[0], inputs.shape[1], hidden.shape[2])
    return outputs, torch.empty_like(hidden), torch.empty_like(memory)


class _Cell(nn.Module):
    """A recurrent module of one layer and one direction, by `recurrence`."""

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.mode = cell.mode
        self.weights = nn.ParameterList(cell_weights(cell))

    def forward(
        self, inputs: Tensor, state: Tensor | tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Return what torch's module returns."""
        hidden, memory = (state, state) if isinstance(state, Tensor) else state
        outputs, hidden, memory = recurrence(self.mode, inputs, hidden, memory, [*self.weights])
        return outputs, hidden if isinstance(state, Tensor) else (hidden, memory)


class _Characters(nn.Module):
    """An embedding by characters whose feature has the symbols of each token, (B, T, W), `NO_SYMBOL` after its last."""

    def __init__(self, embedding: CharConv | CharRnn) -> None:
        super().__init__()
        self.embedding, self.output_size = embedding, embedding.output_size

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map symbols to rows of (length, D)."""
        tokens = features[self.embedding.spelled.feature]
        symbols = tokens.values.flatten(0, 1)
        forms = TracedRows((symbols != NO_SYMBOL).sum(1), symbols.shape[1])
        characters = Ragged(self.embedding.spelled.table(symbols.clamp(min=0)), forms, "padded")
        return tokens.with_values(self.embedding.compose(characters).view(tokens.rows.n_rows, tokens.rows.width, -1))


def traceable(model: Model) -> Model:
    """Return a copy of a model, in eval mode and without gradients, that can be traced."""
    traced = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in [*traced.modules()]:
        for name, part in [*parent.named_children()]:
            if isinstance(part, nn.RNNBase):
                setattr(parent, name, _Cell(part))
            elif isinstance(part, CharConv | CharRnn):
                setattr(parent, name, _Characters(part))
            elif isinstance(part, PretrainedEmbedding) and part.rows.dtype == torch.int16:
                part.rows = part.rows.view(torch.float16).to(part.own.dtype)
    return traced


def characters_of(model: Model) -> dict[str, CharConv | CharRnn]:
    """Return the embeddings by characters of a model, by the feature that they read."""
    found = [module for module in model.modules() if isinstance(module, CharConv | CharRnn)]
    return {module.spelled.feature: module for module in found}
