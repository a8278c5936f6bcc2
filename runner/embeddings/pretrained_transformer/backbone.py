"""A pretrained transformer that runs rows of pieces, packed or padded, without leaking from row to row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from runner.common.errors import HydromelError
from runner.embeddings.pretrained_transformer.attention import NAME, CannotAttendInRowsError, Carried
from runner.embeddings.pretrained_transformer.windows import Windows
from runner.interfaces import State
from runner.layers.dropout import Dropout, number_dropout_layers
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T", bound="PieceModel")
TOLERANCE = 1e-9  # largest difference of packed and single rows in float64, relative to the largest number
_BY_LONGEST_ROW = ("dynamic", "longrope")  # types of rotary positions
MOST_PIECES = 8192  # of a row that runs as a whole
_TEST_LENGTHS, _START = (7, 1, 4), (4,)


class PieceModel(nn.Module):
    """A model that maps rows of pieces to vectors, each row as if it were alone."""

    kind: str  # `model_type` of transformers, such as bert
    size: int  # numbers in a vector
    n_layers: int
    vocabulary: int  # number of pieces that have a vector
    max_pieces: int | None  # most pieces of a row; None: no limit
    pad: int  # the id of padding
    n_segments: int  # number of segments (token types) that the model distinguishes; 0: none
    causal: bool  # true if a vector depends on earlier pieces only
    always_pads = False  # true if packed rows are padded inside

    def pieces_table(self) -> nn.Embedding:
        """Return the vectors of pieces, the model's input."""
        raise NotImplementedError

    def transformer(self) -> PreTrainedModel:
        """Return the model of transformers."""
        raise NotImplementedError

    def carry(self, ids: Ragged, state: State) -> tuple[Ragged, State]:
        """Return the last layer's vectors of the next window of rows, and the state after it.

        Raises:
            HydromelError: the model cannot read rows in windows, or has no positions for rows of this length.
        """
        raise HydromelError(
            f"{self.kind} runs padded only, so it carries no state from piece to piece; it can score texts, but not "
            "continue them"
        )


class RowDropout(nn.Module):
    """A replacement of torch's dropout whose masks can be seeded by row.

    The modules of transformers do not pass rows on, so `Backbone` sets `row_ids` before each run.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = Dropout(p)
        self.row_ids: Ragged | None = None

    @property
    def p(self) -> float:
        """The probability, which modules of transformers read."""
        return self.dropout.p

    def forward(self, values: Tensor) -> Tensor:
        """Drop values, (1, N, *) of packed rows or (B, T, *) of padded ones."""
        if not self.training or self.p == 0.0:
            return values
        assert self.row_ids is not None
        if self.row_ids.layout == "padded":
            dropped: Tensor = self.dropout(values, self.row_ids.rows, "padded")
            return dropped
        packed: Tensor = self.dropout(values[0], self.row_ids.rows, "packed")
        return packed[None]


class Backbone(PieceModel):
    """A model of transformers without its head, made to run in rows.

    Its dropout becomes this project's own, so that the dropout of a row can be seeded, and its attention function is
    `runner.embeddings.pretrained_transformer.attention.attend`.

    Args:
        model: a model that was loaded with this attention function.
        dropout: probability of dropout within the model; None: the model's own.

    Raises:
        CannotAttendInRowsError: the model computes its attention in another way.
        HydromelError: the model mixes the rows of a batch nevertheless.
    """

    def __init__(self, model: PreTrainedModel, dropout: float | None) -> None:
        super().__init__()
        self.model = model
        self.kind: str = model.config.model_type
        self.size: int = model.config.hidden_size
        self.n_layers: int = model.config.num_hidden_layers
        self.vocabulary: int = model.get_input_embeddings().weight.shape[0]
        self.first_position = _first_position(model)
        positions = positions_of(model)
        self.max_pieces: int | None = None if positions is None else positions - self.first_position
        self.pad: int = model.config.pad_token_id or 0
        self.n_segments: int = getattr(model.config, "type_vocab_size", 0)
        self._replace_dropout(dropout)
        self.causal = check_rows(self, single_row)

    def forward(self, ids: Ragged, segments: Tensor | None, all_layers: bool) -> list[Ragged]:
        """Return the vectors of the last layer, or with `all_layers` those of the input and of every layer.

        They are rows of (length, size), in the layout of `ids`.

        Args:
            ids: ids of pieces, including special ones.
            segments: the segment of each piece, in the layout of `ids`; None: all pieces belong to the first.
        """
        return self._run(ids, segments, all_layers, None)

    def carry(self, ids: Ragged, state: State) -> tuple[Ragged, State]:
        carried = Carried(state, ids.rows.n_rows)
        longest = int((carried.n_seen + ids.rows.host_lengths).max(initial=0))
        if self.max_pieces is not None and longest > self.max_pieces:
            raise HydromelError(
                f"a text of {longest:,} pieces is longer than the {self.max_pieces:,} that this {self.kind} has "
                "positions for; shorten it, or continue it by fewer tokens"
            )
        if ids.values.numel() == 0:
            return self._run(ids, None, False, None)[0], state
        vectors = self._run(ids, None, False, carried)[0]
        return vectors, carried.state(ids.rows)

    def _run(self, ids: Ragged, segments: Tensor | None, all_layers: bool, carried: Carried | None) -> list[Ragged]:
        rows, packed = ids.rows, ids.layout == "packed"
        if ids.values.numel() == 0:  # possible with decoders, which add no special pieces to empty rows
            nothing = next(self.parameters()).new_zeros(*ids.values.shape, self.size)
            return [ids.with_values(nothing)] * (self.n_layers + 1 if all_layers else 1)
        self._bind(ids)
        columns = torch.arange(rows.width, device=rows.device).expand(rows.n_rows, -1)
        position = rows.position[None] if packed else columns
        if carried is not None:
            seen = rows.send(carried.n_seen)
            position = position + (seen.index_select(0, rows.row) if packed else seen[:, None])
        if not packed and self.max_pieces is not None:
            # padding can be wider than the longest row that has positions; nothing reads what is there
            position = position.clamp(max=self.max_pieces - 1)
        given = {} if segments is None else {"token_type_ids": segments[None] if packed else segments}
        output = self.model(
            input_ids=ids.values[None] if packed else ids.filled(self.pad),
            position_ids=position + self.first_position,
            use_cache=False,
            output_hidden_states=all_layers,
            row_ids=ids,
            carried=carried,
            **given,
        )
        layers = output.hidden_states if all_layers else [output.last_hidden_state]
        return [ids.with_values(layer[0] if packed else layer) for layer in layers]

    def pieces_table(self) -> nn.Embedding:
        return input_table(self.model)

    def transformer(self) -> PreTrainedModel:
        return self.model

    def _bind(self, ids: Ragged) -> None:
        """Let the dropout modules know the rows of the next run."""
        for module in self._row_dropouts:
            module.row_ids = ids

    def _replace_dropout(self, p: float | None) -> None:
        """Put `RowDropout` in the place of torch's dropout, and a `Dropout` into each module that attends."""
        attending = self._attention_modules()
        for module in [*self.model.modules()]:
            for name, child in [*module.named_children()]:
                if isinstance(child, nn.Dropout):
                    setattr(module, name, RowDropout(child.p if p is None else p))
        self._row_dropouts = [module for module in self.model.modules() if isinstance(module, RowDropout)]
        for module, own in attending:
            module.attention_weights_dropout = Dropout(own if p is None else p)
        number_dropout_layers(self)

    def _attention_modules(self) -> list[tuple[nn.Module, float]]:
        """Return the modules that call the attention function, each with its probability of dropout in training."""
        found: list[tuple[nn.Module, float]] = []
        ids = rows_for_tests([5], self.pad, self.vocabulary)
        was_training = self.training
        self.train()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=()):
                self.model(
                    input_ids=ids.values[None],
                    position_ids=ids.rows.position[None] + self.first_position,
                    use_cache=False,
                    row_ids=ids,
                    attention_modules=found,
                )
        finally:
            self.train(was_training)
        if not found:
            raise CannotAttendInRowsError(f"{type(self.model).__name__} calls no attention function of the registry")
        return found


def run_windows(
    run: Callable[[Ragged, Ragged | None], list[Ragged]],
    laid: Windows,
    ids: Ragged,
    segments: Ragged | None,
    training: bool,
) -> list[Ragged]:
    """Return what `run` returns for windows of pieces, given their `ids` and segments (packed).

    If a row has more than `MOST_PIECES`, windows run in parts of so many, and what is inside the model is computed
    again in the backward pass: the memory for gradients does not grow with the length of rows. Outside of training all
    windows run in such parts, since a batch may have many long rows.
    """
    per_row = np.bincount(laid.row, weights=laid.lengths)
    together = per_row.max(initial=0) if training else per_row.sum()
    if together <= MOST_PIECES:
        return run(ids, segments)
    part = (np.cumsum(laid.lengths) - 1) // MOST_PIECES
    results = []
    for number in np.unique(part):
        chosen = np.flatnonzero(part == number)
        of_part = None if segments is None else segments.select(chosen)
        results.append(checkpoint(run, ids.select(chosen), of_part, use_reentrant=False))
    return [
        Ragged(torch.cat([layer.tokens() for layer in layers]), ids.rows, "packed")
        for layers in zip(*results, strict=True)
    ]


def input_table(model: PreTrainedModel) -> nn.Embedding:
    """Return the vectors of pieces of a model of transformers."""
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def single_row(backbone: Backbone, ids: Ragged) -> Tensor:
    """Return the last layer's vectors of one row, (N, size), with transformers' own attention."""
    with own_attention(backbone.model):
        vectors: Tensor = backbone.model(input_ids=ids.values[None], use_cache=False).last_hidden_state[0]
    return vectors


@contextlib.contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model with the attention function `NAME` run with transformers' own."""
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)


@contextlib.contextmanager
def in_float64(model: nn.Module) -> Iterator[None]:
    """Within the context, let a model compute in float64, without dropout and without gradients."""
    was_training, dtype = model.training, next(model.parameters()).dtype
    model.eval().to(torch.float64)
    try:
        with torch.no_grad():
            yield
    finally:
        model.to(dtype).train(was_training)


def check_scores(backbone: PieceModel, whole: PreTrainedModel, output: nn.Linear) -> None:
    """Compare the scores of a causal model with those of its output layer alone, in float64.

    Raises:
        HydromelError: they differ, since the model changes them, as a soft cap does.
    """
    attention = own_attention(whole.base_model) if isinstance(backbone, Backbone) else contextlib.nullcontext()
    with in_float64(whole.train(backbone.training)), attention:
        ids = rows_for_tests(_TEST_LENGTHS[:1], backbone.pad, backbone.vocabulary).values[None]
        theirs = whole(input_ids=ids, use_cache=False).logits
        ours = output(whole.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    difference, largest = float((theirs - ours).abs().max()), float(theirs.abs().max())
    if not difference <= TOLERANCE * max(1.0, largest):
        raise HydromelError(
            f"embedding=pretrained_lm: {backbone.kind} changes the scores of its output layer (by {difference:.1e}, of "
            f"{largest:.1e}), which is not supported; use another model"
        )


def check_rows(backbone: T, single: Callable[[T, Ragged], Tensor]) -> bool:
    """Compare the last layer of packed and of padded rows with that of `single` ones, in float64.

    Returns:
        Whether the model is causal: the vectors of a row's first pieces do not change if the rest is left out.

    Raises:
        HydromelError: the vectors differ, so the model mixes the rows of a batch.
    """
    with in_float64(backbone):
        ids = rows_for_tests(_TEST_LENGTHS, backbone.pad, backbone.vocabulary)
        packed = backbone(ids, None, False)[-1].values
        padded = backbone(ids.pad(backbone.pad), None, False)[-1].tokens()
        singles = torch.cat([single(backbone, ids.select(np.array([row]))) for row in range(ids.rows.n_rows)])
        # the same pieces as in the first row
        start = single(backbone, rows_for_tests(_START, backbone.pad, backbone.vocabulary))
    most = TOLERANCE * max(1.0, largest := float(singles.abs().max()))
    for layout, got in (("packed", packed), ("padded", padded)):
        difference = float((got - singles).abs().max())
        if not difference <= most:
            raise HydromelError(
                f"embedding=pretrained: {backbone.kind} mixes the rows of a batch: {layout} rows differ from single "
                f"ones by {difference:.1e} (of {largest:.1e}); use another model"
            )
    return float((start - singles[: len(start)]).abs().max()) <= most


def positions_of(model: PreTrainedModel) -> int | None:
    """Return the number of positions in which a row's vectors depend on nothing but the row; None: no limit.

    Rotary positions of some types change their angles for the whole batch if its longest row exceeds the length that
    the model was first trained for (`original_max_position_embeddings`), so rows stay within it.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    given = getattr(model.config, "rope_parameters", None) or {}
    by_layer = [each for each in (given, *given.values()) if isinstance(each, dict)]
    original = [
        each.get("original_max_position_embeddings") for each in by_layer if each.get("rope_type") in _BY_LONGEST_ROW
    ]
    limits = [length for length in (positions, *original) if isinstance(length, int)]
    return min(limits, default=None)


def _first_position(model: nn.Module) -> int:
    """Return the position of a row's first piece: 0, but in RoBERTa's family it follows the id of padding."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def rows_for_tests(lengths: Sequence[int], pad: int, size: int) -> Ragged:
    """Return rows of different pieces, none of them padding."""
    rows = Rows(np.array(lengths), torch.device("cpu"))
    ids = torch.arange(1, rows.n_tokens + 1) * 7 % size
    return Ragged(ids.masked_fill(ids == pad, (pad + 1) % size), rows, "packed")
