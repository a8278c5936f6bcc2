"""The model: features -> embedding -> encoder -> head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.components.model_parts import ModelParts
from runner.config.instantiate import check_kinds
from runner.interfaces import (
    START,
    CarriesState,
    Description,
    HasAttention,
    HasCounters,
    HasDescription,
    HasFiles,
    HasRandomness,
    Head,
    LearnsTargetScale,
    ReadsContext,
    ReadsPieces,
    ReadsSplits,
    State,
    Task,
)
from runner.layers.dropout import Dropout, number_dropout_layers
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.shapes import tokens_in
from runner.text.vocab import Vocab

_TORCH_DROPOUT = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout | nn.FeatureAlphaDropout


class Model(nn.Module):
    """An embedding, an encoder and a head (`runner.interfaces`), which together compute scores for a batch."""

    def __init__(self, embedding: nn.Module, encoder: nn.Module, head: Head) -> None:
        super().__init__()
        self.embedding, self.encoder, self.head = embedding, encoder, head
        number_dropout_layers(self)

    def forward(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Return scores, (B, C) for rows or (N, C) for real tokens, and the state at the end of each row."""
        encoded, state = self.encode(batch.features, state)
        return self.head(encoded, batch), state

    def encode(self, features: Mapping[str, Ragged], state: State) -> tuple[Ragged, State]:
        """Return the vectors that the head gets, and the state at the end of each row.

        The state is the encoder's, or that of the embedding and that of the encoder if both carry one.
        """
        of_embedding: State = None
        if isinstance(self.embedding, CarriesState) and state is not None:
            assert isinstance(state, tuple)
            before, state = state or (START, START)
            embedded, of_embedding = self.embedding.carry(features, before)
        else:
            embedded = self.embedding(features)
        if not isinstance(embedded, Ragged):
            raise _wrong_output("embedding", self.embedding, embedded, "Embedding", "a Ragged")
        output = self.encoder(embedded, state)
        if not (isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Ragged)):
            raise _wrong_output("encoder", self.encoder, output, "Encoder", "a Ragged and a state, which may be None")
        encoded, state = output
        return encoded, state if of_embedding is None or state is None else (of_embedding, state)


def _wrong_output(role: str, part: nn.Module, output: object, protocol: str, expected: str) -> HydromelError:
    got = type(output).__name__
    if isinstance(output, tuple):
        got = f"({', '.join(type(item).__name__ for item in output)})"
    return HydromelError(
        f"{role}: {type(part).__name__}.forward returned {got}; {protocol} in runner.interfaces returns {expected}"
    )


def build_model(parts: ModelParts, vocabs: Mapping[str, Vocab], files: Path | None = None) -> Model:
    """Return the model of these parts and this task, on the CPU in float32.

    `files` is the folder that `save_files` wrote for a run whose checkpoint is to be loaded; None: a new run.

    Raises:
        HydromelError: parts that do not fit each other, or that lack a member of their role's protocol.
    """
    embedding = parts.embedding(vocabs=vocabs, files=files)
    encoder = parts.encoder(
        input_size=embedding.output_size, causal=parts.task.causal, carries_state=parts.task.carries_state
    )
    assert isinstance(embedding, nn.Module)
    _check_context(embedding, parts.task)
    assert isinstance(encoder, nn.Module)
    head = parts.task.head(encoder, vocabs, embedding)
    check_kinds(head, "task: head", nn.Module, Head)
    assert isinstance(head, nn.Module)
    return Model(embedding, encoder, head)


def _check_context(embedding: nn.Module, task: Task) -> None:
    """Raise a HydromelError if a part of the embedding reads more tokens of the row than the task allows."""
    for part in embedding.modules():
        if isinstance(part, ReadsContext):
            if task.causal and part.token_context != "earlier":
                raise HydromelError(
                    f"embedding: {type(part).__name__} reads later tokens, which task={task.name} predicts; use a "
                    "decoder such as GPT-2, or another embedding"
                )
            if task.carries_state:
                raise HydromelError(
                    f"embedding: {type(part).__name__} reads whole rows, but task.unit=stream has windows of one text; "
                    "use task.unit=line"
                )


def with_pieces(model: nn.Module, split: Batch) -> Batch:
    """Return a split with the numbers of pieces that the model reads of its rows, if it reads pieces.

    If several of its parts do, those of the part that reads most count.
    """
    parts = [module.count_pieces(split) for module in model.modules() if isinstance(module, ReadsPieces)]
    counts = [count for count in parts if count is not None]
    return replace(split, pieces=max(counts, key=lambda count: int(tokens_in(count.lengths).sum()), default=None))


def read_splits(model: nn.Module, splits: Mapping[str, Batch], cache_dir: Path | None) -> list[str]:
    """Let parts of the model compute what depends on the rows alone; return their lines for the console."""
    lines = [module.read_splits(splits, cache_dir) for module in model.modules() if isinstance(module, ReadsSplits)]
    return [line for line in lines if line is not None]


def assume_read(model: nn.Module) -> None:
    """Let parts of the model behave as after `read_splits`, with made-up numbers, to predict time and memory."""
    for module in model.modules():
        if isinstance(module, ReadsSplits):
            module.assume_read()


def learn_scale(model: nn.Module, train: Batch) -> None:
    """Call `learn_scale` of the parts of a new model that have it, with the training set."""
    for module in model.modules():
        if isinstance(module, LearnsTargetScale):
            module.learn_scale(train)


def save_files(model: nn.Module, folder: Path) -> None:
    """Write the files that parts of the model need besides their weights; no folder if there are none."""
    for module in model.modules():
        if isinstance(module, HasFiles):
            folder.mkdir(exist_ok=True)
            module.save_files(folder)


def saved_files(run: Path) -> Path | None:
    """Return the folder that `save_files` wrote in the folder of a run; None if there is none."""
    folder = run / run_schema.MODEL_FILES
    return folder if folder.is_dir() else None


def descriptions(model: nn.Module, splits: Mapping[str, Batch]) -> list[Description]:
    """Return the reports of all parts of the model on the data set, in the order of the model."""
    return [module.describe(splits) for module in model.modules() if isinstance(module, HasDescription)]


def counters(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return the counts of all forward passes so far, by group and name, added up over the model's parts."""
    total: dict[str, dict[str, int]] = {}
    for module in model.modules():
        if isinstance(module, HasCounters):
            for group, counts in module.counters().items():
                sums = total.setdefault(group, {})
                sums.update({name: sums.get(name, 0) + count for name, count in counts.items()})
    return total


def has_attention(model: nn.Module) -> bool:
    """Return True if some part of the model attends: packed rows run in blocks, at a cost per pair of tokens."""
    return any(module.has_attention for module in model.modules() if isinstance(module, HasAttention))


def has_randomness(model: nn.Module) -> bool:
    """Return True if some part of the model draws random numbers in training, so that equal updates can differ."""
    return any(_draws(module) for module in model.modules())


def unseeded_dropout(model: nn.Module) -> list[str]:
    """Return the names of the modules whose random numbers do not follow from row seeds (`Batch.with_seeds`)."""
    named = model.named_modules()
    return [name for name, module in named if _draws(module) and not isinstance(module, Dropout)]


def _draws(module: nn.Module) -> bool:
    if isinstance(module, HasRandomness):
        return module.has_randomness
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):  # torch's own layers cannot say it themselves
        return module.dropout > 0
    return isinstance(module, _TORCH_DROPOUT) and module.p > 0


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    return next(model.parameters()).device
