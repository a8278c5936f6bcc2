"""A pretrained causal model, for language modelling in the pieces of its own tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import (
    Factor,
    FilePath,
    Fraction,
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
    UnicodeForm,
)
from runner.embeddings.pretrained_transformer.backbone import run_windows
from runner.embeddings.pretrained_transformer.base import BaseWeights, keeps_base, saved_or_new, write_base
from runner.embeddings.pretrained_transformer.depth import factors_of, freeze, layers_in_turn
from runner.embeddings.pretrained_transformer.embedding import (
    check_tokenizer,
    copy_files,
    longest_window,
    notes_on,
    tokenizer_hash,
)
from runner.embeddings.pretrained_transformer.files import STATIC, find_files
from runner.embeddings.pretrained_transformer.load import Lora, load_language_model
from runner.embeddings.pretrained_transformer.merged import write_folder
from runner.embeddings.pretrained_transformer.pieces import PieceTable, Specials
from runner.embeddings.pretrained_transformer.windows import windows_of
from runner.interfaces import Description, OutputLayer, State
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, copy_to_device
from runner.text.pieces import tokenizer_pieces
from runner.text.vocab import EOS, PAD, SPECIALS, UNK, Vocab, normalised_strings, vocab_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

_NO_SPECIALS = Specials((), (), (), 0)


@dataclass(frozen=True, kw_only=True)
class PretrainedPieces:
    """A feature of the pieces into which the tokenizer of a pretrained model splits each row.

    The words of a row are joined by one space and split exactly as by transformers. The vocabulary is the tokenizer's.

    Args:
        path, revision, data_dir: the model, as for `TransformerEmbedding`.
    """

    column: Text
    path: FilePath
    revision: Text | None
    data_dir: FilePath | None
    unicode: UnicodeForm = "NFC"
    extend: ClassVar[bool] = False

    def strings(self, table: pa.Table) -> pa.Array:
        """Return the words (N,), which `runner.data.numericalize.columns_of` splits by the vocabulary's tokenizer."""
        return normalised_strings(table, self.column, self.unicode, lowercase=False, digits_to_zero=False)

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        return self.own_vocab()

    def own_vocab(self) -> Vocab:
        """Return the pieces in the order of the tokenizer's ids, without the one that stands for unknown text."""
        files = find_files(self.path, self.revision, self.data_dir)
        try:
            return vocab_of_tokenizer(files.load_tokenizer(add_space=False), self.unicode)
        except HydromelError as error:
            raise HydromelError(f"features: {self.path}: {error}") from error


def vocab_of_tokenizer(tokenizer: PreTrainedTokenizerFast, unicode: UnicodeForm) -> Vocab:
    """Return the vocabulary of a tokenizer; `unicode` is the normal form of the text that it gets."""
    definition = tokenizer.backend_tokenizer.to_str()
    unknown = unknown_text(tokenizer)
    strings = tuple(piece for piece in tokenizer_pieces(definition).strings if piece != unknown)
    return Vocab(strings, SPECIALS, unicode=unicode, tokenizer=definition)


def unknown_text(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Return the piece that stands for unknown text; None if there is none, as in GPT-2, which only names one."""
    unk: str | None = tokenizer.unk_token
    return None if unk in (tokenizer.eos_token, tokenizer.bos_token) else unk


class PretrainedLanguageModel(nn.Module):
    """The vectors of a pretrained causal model, and its output layer, which task=lm uses as its own.

    Args:
        feature: a feature of its pieces (`PretrainedPieces`).
        path: folder, installed package or id of the Hugging Face Hub.
        revision: commit, branch or tag on the Hub; null: the newest.
        data_dir: folder that `path` may be relative to.
        window: maximum number of pieces that the model reads at once; null: its number of positions.
        overlap: number of pieces that neighbouring windows of a long row share, at least: so many pieces before it
            predict a piece at the start of a window.
        frozen, rate, layer_decay, lora, recompute, inner_dropout, save_base: as for `TransformerEmbedding`. The output
            layer, if it has weights of its own, belongs to the layer that is trained fastest; `frozen=[all]` freezes it
            too.
        files: folder with the files of a saved run, from which configuration and tokenizer are taken; the weights are
            those of its checkpoint, or of `path` if that run has not kept them. None: a new run.

    Raises:
        HydromelError: the model is missing or damaged, no causal language model, or does not fit the feature.
    """

    token_context = "earlier"  # `runner.interfaces.ReadsContext`
    has_attention = True  # `runner.interfaces.HasAttention`

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: Name,
        path: FilePath,
        revision: Text | None,
        data_dir: FilePath | None,
        window: PositiveInt | None,
        overlap: NonNegativeInt,
        frozen: list[Text | NonNegativeInt],
        rate: PositiveFloat,
        layer_decay: Factor,
        lora: Lora | None,
        recompute: bool,
        inner_dropout: Fraction | None,
        save_base: bool,
        files: Path | None = None,
    ) -> None:
        super().__init__()
        source = saved_or_new(files, path, revision, data_dir)
        if source.read_config().get("model_type") == STATIC:
            raise HydromelError(f"embedding.path={path} is a table of vectors, no language model")
        tokenizer = source.load_tokenizer(add_space=False)
        self.source, self.feature = source, feature
        loaded, output, whole = load_language_model(source, inner_dropout, lora, recompute)
        self.whole = (whole,)  # in a tuple, since its parameters are those of the parts
        self.backbone, self.output, self.not_fitting = loaded.model, output, loaded.not_fitting
        check_tokenizer(source, tokenizer, self.backbone)
        self.longest = longest_window(self.backbone, window, overlap, 0)
        self.overlap = overlap
        if lora is None:
            freeze(self.backbone, frozen)
            if "all" in frozen:
                self.output.requires_grad_(False)
        elif frozen:
            raise ValueError(f"frozen={frozen}: with lora only the adapters are trained; use frozen=[]")
        is_fixed = lora is not None or not any(parameter.requires_grad for parameter in self.parameters())
        self.base = BaseWeights(self, ("backbone.", "output."))
        self.keeps_base = keeps_base(files, source, self.base, is_fixed, save_base, loaded)
        factors = factors_of(self.backbone, rate, layer_decay, prefix="backbone.")
        own = {f"output.{name}": rate for name, _ in self.output.named_parameters()}
        self.learning_rate_factors = {**own, **factors}
        self.output_size = self.backbone.size
        self._set_ids(vocab_of(vocabs, feature), tokenizer)
        self.work = {"real": 0, "padded": 0, "windows": 0}

    def _set_ids(self, vocab: Vocab, tokenizer: PreTrainedTokenizerFast) -> None:
        """Find the model's piece for each id of the vocabulary: as input, where `<eos>` starts a row, and as target."""
        if vocab.tokenizer is None:
            raise HydromelError(
                f"embedding=pretrained_lm reads pieces of its own tokenizer, but features.{self.feature} is another "
                "feature; use features=pieces"
            )
        if vocab.strings != vocab_of_tokenizer(tokenizer, vocab.unicode).strings:
            raise HydromelError(
                f"embedding.path={self.source.source}: its tokenizer has other pieces than features.{self.feature}; "
                f"use the same path for both"
            )
        ids = tokenizer.get_vocab()
        first, last = ends_of(tokenizer, self.source.load_config(), self.source.source)
        unk = unknown_text(tokenizer)
        special = {PAD: -1, UNK: -1 if unk is None else ids[unk], EOS: last}
        targets = torch.tensor([*(special[name] for name in vocab.specials), *(ids[name] for name in vocab.strings)])
        inputs = targets.clamp(min=0)
        inputs[vocab.eos] = first
        # the table in which each id is one piece
        self.table = PieceTable(inputs.numpy().copy(), np.arange(len(vocab) + 1), 0)
        self.targets: Tensor
        self.inputs: Tensor
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("inputs", inputs, persistent=False)

    def output_layer(self) -> OutputLayer:
        """Return the output layer (`runner.interfaces.HasOutputLayer`)."""
        return OutputLayer(self.output.weight, self.output.bias, self.targets)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids of pieces to rows of (length, D), in the same layout; each row as if it were alone."""
        ids = features[self.feature]
        rows = ids.rows
        is_long = self.longest is not None and int(rows.host_lengths.max(initial=0)) > self.longest
        if is_long:
            return self._in_windows(ids)
        self._count(rows, ids.layout)
        layers: list[Ragged] = self.backbone(self._pieces(ids), None, False)
        return layers[-1]

    def carry(self, features: Mapping[str, Ragged], state: State) -> tuple[Ragged, State]:
        """Read the next window of each row (`runner.interfaces.CarriesState`): keys and values are carried."""
        ids = features[self.feature]
        self._count(ids.rows, ids.layout)
        return self.backbone.carry(self._pieces(ids), state)

    def _pieces(self, ids: Ragged) -> Ragged:
        """Return the model's pieces for ids."""
        values = ids.filled(0).long()
        return ids.with_values(self.inputs.index_select(0, values.flatten()).view(values.shape))

    def _in_windows(self, ids: Ragged) -> Ragged:
        """Read rows that are too long in overlapping windows; a piece is predicted in the one with most before it."""
        host = ids.on_host().astype(np.int64)
        laid = windows_of(host, ids.rows, self.table, _NO_SPECIALS, self.longest, self.overlap, -1, causal=True)
        seeds, device = ids.rows.seeds, ids.values.device
        longest = max(1, int(laid.lengths.max(initial=0)))
        rows = Rows(laid.lengths, device, longest + -longest % ids.rows.width_multiple)
        rows = rows.with_seeds(None if seeds is None else seeds.index_select(0, rows.send(laid.row)))
        pieces = Ragged(copy_to_device(laid.pieces, device), rows, "packed", laid.pieces)
        self._count(rows, ids.layout)

        def run(pieces: Ragged, segments: Ragged | None) -> list[Ragged]:
            read = pieces if ids.layout == "packed" else pieces.pad(self.backbone.pad)
            layers: list[Ragged] = self.backbone(read, None, False)
            return layers

        layers = run_windows(run, laid, pieces, None, self.training)
        result = Ragged(layers[-1].tokens().index_select(0, rows.send(laid.place)), ids.rows, "packed")
        return result.pad() if ids.layout == "padded" else result

    def _count(self, rows: Rows, layout: str) -> None:
        self.work["real"] += rows.n_tokens
        if layout == "padded" or self.backbone.always_pads:
            self.work["padded"] += rows.n_rows * rows.width - rows.n_tokens
        self.work["windows"] += rows.n_rows

    def counters(self) -> dict[str, dict[str, int]]:
        """Return the numbers of real and padded pieces and of windows so far (`runner.interfaces.HasCounters`)."""
        return {"pieces": {**self.work}}

    def describe(self, splits: Mapping[str, Batch]) -> Description:
        """Return the model and the number of long rows of each split (`runner.interfaces.HasDescription`)."""
        lengths = {name: split.features[self.feature].rows.host_lengths for name, split in splits.items()}
        long_rows = {
            name: 0 if self.longest is None else int((of_rows > self.longest).sum())
            for name, of_rows in lengths.items()
        }
        entry = {
            "feature": self.feature,
            "path": self.source.source,
            "model": self.backbone.kind,
            "layers": self.backbone.n_layers,
            "size": self.backbone.size,
            "vocabulary": self.backbone.vocabulary,
            "layout": "padded" if self.backbone.always_pads else "as the batch",
            "tokenizer": tokenizer_hash(self.source.folder),
            "pieces": {name: int(of_rows.sum()) for name, of_rows in lengths.items()},
            "rows_in_windows": long_rows,
            **self.not_fitting,
        }
        line = f"{self.source.source} ({self.backbone.kind}, {self.backbone.n_layers} layers of {self.backbone.size})"
        line += notes_on(self.backbone, long_rows, self.longest, self.not_fitting)
        return Description("pretrained", entry, line)

    def save_files(self, folder: Path) -> None:
        """Write the configuration and the tokenizer to a run's folder (`runner.interfaces.HasFiles`)."""
        target = copy_files(self.source, folder)
        write_base(target, None if self.keeps_base else self.base_hash())

    def write_folder(self, folder: Path) -> float:
        """Write the language model, in transformers' format, to a new folder (`runner.interfaces.WritesFolder`)."""
        return write_folder(folder, self.source, self.backbone, self.whole[0])

    def layers_in_turn(self, lengths: IntArray) -> Sequence[nn.Module]:
        """Return the layers of the transformer (`runner.interfaces.HasLayers`)."""
        is_long = self.longest is not None and int(lengths.max(initial=0)) > self.longest  # windows may run in parts
        return [] if is_long else layers_in_turn(self.backbone, lengths)

    def base_names(self) -> set[str]:
        """Return the names of the pretrained model's tensors (`runner.interfaces.HasBaseWeights`)."""
        return self.base.names()

    def base_hash(self) -> str:
        """Return the hash of the pretrained model's tensors."""
        return self.base.hash(is_fixed=not self.keeps_base)


def ends_of(tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig, source: str) -> tuple[int, int]:
    """Return the piece from which a row starts, and the one that ends it, which may be the same.

    The first is the one that the tokenizer puts before a text; of a tokenizer that puts none, its begin-of-text piece
    or the model's; of a model without it, the one that ends texts.

    Raises:
        HydromelError: the model has no such pieces, or several before a text.
    """
    encode = tokenizer.backend_tokenizer.encode
    plain, wrapped = encode("a", add_special_tokens=False).ids, encode("a", add_special_tokens=True).ids
    before = wrapped[: next((at for at in range(len(wrapped)) if wrapped[at : at + len(plain)] == plain), 0)]
    if len(before) > 1:
        raise HydromelError(f"embedding.path={source}: its tokenizer puts {len(before)} pieces before a text, not one")
    last = _first_of(tokenizer.eos_token_id, config.eos_token_id)
    first = _first_of(*before, tokenizer.bos_token_id, config.bos_token_id, last)
    last = first if last is None else last
    if first is None or last is None:
        raise HydromelError(f"embedding.path={source}: it has no piece that starts or ends a text (bos, eos)")
    return first, last


def _first_of(*ids: int | list[int] | None) -> int | None:
    """Return the first id that is there; of a list its first."""
    given = (each[0] if isinstance(each, list) else each for each in ids if each not in (None, []))
    return next(given, None)
