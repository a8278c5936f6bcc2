"""Programs: what an exported file computes, as a module of plain tensors with named inputs and outputs.

Shapes: B rows (`batch`), T the padded width in tokens (`length`), W that of tokens in characters (`characters`), C
classes, V strings of the vocabulary.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.data.numericalize import TARGET
from runner.data.pairs import pairs_of
from runner.embeddings.pretrained_transformer.embedding import TransformerEmbedding
from runner.export.traceable import NO_SYMBOL, characters_of, traceable
from runner.inference.generation.language_model import NextToken, NextTokenHead
from runner.inference.trained import TrainedModel
from runner.interfaces import START, HasInspector, State
from runner.model import Model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.ragged.traced import HostLengths, TracedRows

Part = Literal["step", "lines"]
NO_ANSWER = -1  # of tags in padding
SIZES = {"batch": 3, "length": 5, "characters": 7}  # of the example that is traced; all may be other ones later


@dataclass(frozen=True)
class Port:
    """An input or output of a program."""

    name: str
    dtype: Literal["int64", "float32", "float64", "bool"]
    shape: tuple[str | int, ...]  # names of dimensions that vary, and sizes of the others
    meaning: str

    def example(self) -> Tensor:
        """Return an input to trace with: ones."""
        sizes = [SIZES[size] if isinstance(size, str) else size for size in self.shape]
        return torch.ones(sizes, dtype=getattr(torch, self.dtype))

    def zeros(self, rows: int) -> npt.NDArray[np.float32]:
        """Return the state of some rows at the start of their texts."""
        sizes = [rows if isinstance(size, str) else size for size in self.shape]
        return np.zeros(sizes, np.float32)

    def dynamic(self) -> dict[int, object]:
        """Return the dimensions that vary, as `torch.export` takes them."""
        return {place: torch.export.Dim.DYNAMIC for place, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass(frozen=True)
class _TracedBatch(Batch):
    """A batch of traced rows, of which the host knows no number of rows."""

    n_texts: int = 1

    @property
    def texts(self) -> int:
        return self.n_texts

    @property
    def single(self) -> Rows:
        return TracedRows(torch.ones_like(self.rows.lengths[:: self.n_texts]), 1, full=True)


class Program(nn.Module, ABC):
    """A function of tensors, in the order of `inputs` and `outputs`."""

    inputs: list[Port]
    outputs: list[Port]

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model = traceable(trained.model)
        self.names = [*trained.features]
        self.spelled = characters_of(trained.model)

    @abstractmethod
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...

    def _feature(self, name: str, *shape: str | int) -> Port:
        """Return the input of a feature: ids, or symbols if an embedding composes the tokens of characters."""
        if name in self.spelled:
            meaning = f"symbols of the characters of each token, {NO_SYMBOL} after its last; any in padding"
            return Port(name, "int64", (*shape, "characters"), meaning)
        return Port(name, "int64", shape, "ids of the tokens; any in padding")

    def _read(self, values: Sequence[Tensor], rows: TracedRows) -> dict[str, Ragged]:
        """Return the features, with the ids of padding in the padding, whatever was there."""
        features = {}
        for name, ids in zip(self.names, values, strict=True):
            mask = rows.mask[..., None] if name in self.spelled else rows.mask
            filled = ids.masked_fill(~mask, NO_SYMBOL if name in self.spelled else 0)
            features[name] = Ragged(filled, rows, "padded")
        return features


class RowsProgram(Program):
    """A classifier, a regression or a tagger: padded rows -> answers, their probabilities, and scores."""

    def __init__(self, trained: TrainedModel, column: Literal["label", "labels", "value", "tags"]) -> None:
        super().__init__(trained)
        self.per_token, self.has_numbers = column == "tags", column == "value"
        self.texts = 2 if pairs_of(trained.task) == "apart" else 1
        pair = () if self.texts == 1 else (2,)
        lengths = Port("lengths", "int64", ("batch", *pair), "number of tokens of each row, from 0")
        self.inputs = [*(self._feature(name, "batch", *pair, "length") for name in self.names), lengths]
        n_scores = 1 if self.has_numbers else trained.vocabs[TARGET].known
        rows: tuple[str | int, ...] = ("batch", "length") if self.per_token else ("batch",)
        meaning = {
            "label": "the predicted label, an index of `labels`",
            "labels": "true for each label, in the order of `labels`, whose probability reaches its threshold",
            "tags": f"the predicted tag of each token, an index of `labels`; {NO_ANSWER} in padding",
            "value": "the predicted number",
        }[column]
        dtype: dict[str, Literal["bool", "float64"]] = {"labels": "bool", "value": "float64"}
        shape = (*rows, n_scores) if column == "labels" else rows
        self.outputs = [Port(column, dtype.get(column, "int64"), shape, meaning)]
        if not self.has_numbers:
            self.outputs.append(Port("probability", "float32", (*rows, n_scores), "of every label, in their order"))
        what = "before the unit of the targets" if self.has_numbers else "of every label, in their order"
        self.outputs.append(Port("scores", "float32", (*rows, n_scores), f"scores of the model, {what}"))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *values, lengths = inputs
        if self.texts > 1:
            values, lengths = [ids.flatten(0, 1) for ids in values], lengths.flatten()
        rows = TracedRows(lengths, values[0].shape[1])
        target: Tensor | Ragged = lengths[:: self.texts]
        if self.per_token:
            target = Ragged(torch.zeros_like(rows.flat), rows, "packed")
        batch = _TracedBatch(self._read(values, rows), target, np.arange(0), n_texts=self.texts)
        scores, _ = self.model(batch, None)
        outputs = [self.model.head.predict(scores, batch), self.model.head.probabilities(scores, batch), scores]
        if not self.per_token:
            return tuple(output for output in outputs if output is not None)
        tags, *others = (output.view(rows.n_rows, rows.width, *output.shape[1:]) for output in outputs)
        return (
            tags.masked_fill(~rows.mask, NO_ANSWER),
            *(part.masked_fill(~rows.mask[..., None], 0) for part in others),
        )


class LinesProgram(Program):
    """A language model that reads whole lines: log P of each following token, and of every token after the last."""

    def __init__(self, trained: TrainedModel, feature: str) -> None:
        super().__init__(trained)
        self.predicted, self.end = feature, trained.vocabs[TARGET].eos
        starts = Port("lengths", "int64", ("batch",), "number of tokens of each row with the first `<eos>`, from 1")
        self.inputs = [*(self._feature(name, "batch", "length") for name in self.names), starts]
        following = "log P (nats) of the token after each one, of `<eos>` after the last; 0 in padding"
        every = "log P (nats) of every string after the last token"
        self.outputs = [
            Port("log_probability", "float32", ("batch", "length"), following),
            Port("next", "float32", ("batch", len(trained.vocabs[TARGET])), every),
        ]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *values, lengths = inputs
        rows = TracedRows(lengths, values[0].shape[1])
        features = self._read(values, rows)
        batch = _TracedBatch(features, Ragged(torch.zeros_like(rows.flat), rows, "packed"), np.arange(0))
        vectors, _ = self.model(batch, None)
        every = _output(self.model, vectors).view(rows.n_rows, rows.width, -1)
        ids = features[self.predicted].values
        is_last = torch.arange(rows.width, device=lengths.device) == lengths[:, None] - 1
        following = ids.roll(-1, dims=1).masked_fill(is_last, self.end)
        log_p = every.gather(2, following[..., None])[..., 0].masked_fill(~rows.mask, 0.0)
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, every.shape[2])
        return log_p, every.gather(1, last)[:, 0]


class StepProgram(Program):
    """A language model that reads one token of each row: state in, log P of every next token and the new state out."""

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__(trained)
        self.start = _start(self.model, trained)
        leaves = _leaves(self.start)
        self.inputs = [self._feature(name, "batch") for name in self.names]
        self.outputs = [
            Port("log_probability", "float32", ("batch", len(trained.vocabs[TARGET])), "log P (nats) of the next token")
        ]
        for place, leaf in enumerate(leaves):
            shape = ("batch", *leaf.shape[1:])
            self.inputs.append(Port(f"state_{place}", "float32", shape, "state before the token; zeros at the start"))
            self.outputs.append(Port(f"new_state_{place}", "float32", shape, "state after the token"))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values, leaves = inputs[: len(self.names)], inputs[len(self.names) :]
        rows = TracedRows(torch.ones_like(values[0][..., 0] if self.names[0] in self.spelled else values[0]), 1, True)
        features = {name: Ragged(ids[:, None], rows, "padded") for name, ids in zip(self.names, values, strict=True)}
        batch = _TracedBatch(features, Ragged(torch.zeros_like(rows.flat), rows, "packed"), np.arange(0))
        vectors, state = self.model(batch, _with_leaves(self.start, [*leaves]))
        return (_output(self.model, vectors), *_leaves(state))


def _output(model: Model, vectors: Tensor) -> Tensor:
    assert isinstance(model.head, NextTokenHead)
    return model.head.output.log_probabilities(vectors)


def _start(model: Model, trained: TrainedModel) -> State:
    """Return the state after a token, whose shapes are those of every state.

    Raises:
        HydromelError: the encoder carries no state, or one that grows.
    """
    names, encoder = [*trained.features], trained.model.encoder
    rows = TracedRows(torch.ones(2, dtype=torch.int64), 1, True)
    widths = {name: (2, 1, 3) if name in characters_of(trained.model) else (2, 1) for name in names}
    features = {name: Ragged(torch.ones(shape, dtype=torch.int64), rows, "padded") for name, shape in widths.items()}
    vectors = model.embedding(features)
    state: State = None
    with contextlib.suppress(HostLengths):  # of an encoder that looks back at tokens, whose number the host must know
        state = model.encoder(vectors, START)[1]
    if state is None:
        raise HydromelError(
            f"{type(encoder).__name__} carries no state of a fixed size from token to token, so this run has no step; "
            "add --part lines, which exports the model of whole lines"
        )
    return state


def _leaves(state: State) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    assert isinstance(state, list | tuple)
    return [leaf for part in state for leaf in _leaves(part)]


def _with_leaves(state: State, leaves: list[Tensor]) -> State:
    """Return the state with its tensors replaced by the first of `leaves`, which are removed from the list."""
    if isinstance(state, Tensor):
        return leaves.pop(0)
    assert isinstance(state, list | tuple)
    return type(state)(_with_leaves(part, leaves) for part in state)


def program_of(trained: TrainedModel, part: Part | None) -> Program:
    """Return the program of a trained model; `part` is of a language model, None: `step` if it carries a state.

    Raises:
        HydromelError: a part that does not apply.
    """
    task, head = trained.task, trained.model.head
    if any(isinstance(part, TransformerEmbedding) for part in trained.model.modules()):
        raise HydromelError(
            "embedding=pretrained is exported as no program; hydromel-predict, runner.api and its model in MLflow "
            "(mlflow models serve) answer from the run itself; --format transformers writes its transformer"
        )
    if isinstance(task, NextToken) and isinstance(head, NextTokenHead):
        return LinesProgram(trained, task.feature) if part == "lines" else StepProgram(trained)
    if part is not None:
        raise HydromelError(f"--part {part} is for language models; this run has task={task.name}")
    if not isinstance(task, HasInspector):
        raise HydromelError(
            f"task={task.name} has no predictions to export; use a run of task=classify, regress, tag or lm"
        )
    return RowsProgram(trained, task.inspector(trained.vocabs, head).column)
