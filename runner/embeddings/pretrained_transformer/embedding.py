"""Vectors of words in their context, by a pretrained transformer."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.files import write_text
from runner.common.printable import printable
from runner.common.types import (
    Factor,
    FilePath,
    Fraction,
    Layer,
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
)
from runner.embeddings.pretrained_transformer.backbone import PieceModel, run_windows
from runner.embeddings.pretrained_transformer.base import (
    FOLDER,
    BaseWeights,
    hash_of,
    keeps_base,
    saved_or_new,
    write_base,
)
from runner.embeddings.pretrained_transformer.depth import factors_of, freeze, layers_in_turn
from runner.embeddings.pretrained_transformer.files import CONFIG, STATIC, TOKENIZER, PretrainedFiles
from runner.embeddings.pretrained_transformer.load import Lora, load_model
from runner.embeddings.pretrained_transformer.merged import write_folder
from runner.embeddings.pretrained_transformer.pieces import Specials, cut_words
from runner.embeddings.pretrained_transformer.static import StaticTable
from runner.embeddings.pretrained_transformer.vector_cache import StandIn, VectorCache
from runner.embeddings.pretrained_transformer.windows import Windows, window_lengths, windows_of
from runner.interfaces import Description
from runner.layers.dropout import Dropout
from runner.layers.pooling import mean_pool
from runner.ragged.batch import Batch, PieceCounts
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, copy_to_device
from runner.text.vocab import Vocab, vocab_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TransformerEmbedding(nn.Module):
    """An embedding of words in their context: a pretrained transformer reads each row as pieces of words.

    Args:
        feature: a feature of word forms (`runner.text.features.Forms`).
        path: folder, installed package or id of the Hugging Face Hub.
        revision: commit, branch or tag on the Hub; null: the newest.
        data_dir: folder that `path` may be relative to.
        pool: the vector of a word: that of its first or last piece, the mean of all, or first and last concatenated.
        specials: keep or drop the vectors of special pieces, such as [CLS], around each row. With keep, a row has a
            token more for its first special piece.
        layers: the layer whose vectors are used, from the last (-1), or several, which are averaged with learned
            weights (Peters et al. 2018, eq. 1).
        window: maximum number of pieces that the model reads at once; null: its number of positions.
        overlap: number of pieces that neighbouring windows of a long row share, at least.
        frozen: parts that are not trained: embeddings, all, or layers such as 0-3 or 5.
        cache: compute the vectors of the frozen transformer once for each row of the data set, and keep them in files.
        sparse: update only the vectors of pieces that an update has (`runner.training.touched_rows`).
        rate: learning rate of the transformer as a multiple of the optimiser's.
        layer_decay: factor of the rate from each layer to the one below it; 1: the same rate everywhere.
        lora: adapters that are trained instead of the model's parameters; null: none.
        recompute: compute the values inside layers again in the backward pass: less memory, more time.
        inner_dropout: probability of dropout within the model; null: the model's own.
        save_base: keep the weights of the pretrained model in checkpoints although none is trained (with lora or
            frozen=[all]), so that the run needs nothing else. They are always kept if some are trained.
        files: folder with the files of a saved run, from which configuration and tokenizer are taken; the weights are
            those of its checkpoint, or of `path` if that run has not kept them. None: a new run.

    Raises:
        HydromelError: the model is missing or damaged, or mixes the rows of a batch.
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: Name,
        path: FilePath,
        revision: Text | None,
        data_dir: FilePath | None,
        pool: Literal["first", "last", "mean", "first_last"],
        specials: Literal["keep", "drop"],
        layers: list[Layer],
        window: PositiveInt | None,
        overlap: NonNegativeInt,
        frozen: list[Text | NonNegativeInt],
        cache: bool,
        sparse: bool,
        rate: PositiveFloat,
        layer_decay: Factor,
        lora: Lora | None,
        recompute: bool,
        inner_dropout: Fraction | None,
        save_base: bool,
        dropout: Fraction,
        files: Path | None = None,
    ) -> None:
        super().__init__()
        vocab_of(vocabs, feature)
        source = saved_or_new(files, path, revision, data_dir)
        self.source, self.feature, self.pool, self.specials = source, feature, pool, specials
        if any(str(part) == "all" for part in frozen):
            if inner_dropout:
                raise ValueError(f"inner_dropout={inner_dropout}: with frozen=[all] the transformer has no dropout")
            inner_dropout = 0.0 if not is_table(source) else inner_dropout
        loaded = load_model(source, inner_dropout, lora, recompute)
        self.backbone, self.not_fitting = loaded.model, loaded.not_fitting
        self.tokenizer = source.load_tokenizer(add_space=True)
        self.around = Specials.of(self.tokenizer)
        self.token_context = "earlier" if self.backbone.causal else "all"  # `runner.interfaces.ReadsContext`
        self.has_attention = not isinstance(self.backbone, StaticTable)  # `runner.interfaces.HasAttention`
        check_tokenizer(source, self.tokenizer, self.backbone)
        self.longest = longest_window(self.backbone, window, overlap, self.around.count)
        self.overlap = overlap
        self.layers = [self._layer(layer) for layer in layers]
        if not layers:
            raise ValueError("layers=[]: at least one is needed, such as [-1]")
        self.needs_all = self.layers != [self.backbone.n_layers]
        self.mix = nn.Parameter(torch.zeros(len(layers))) if len(layers) > 1 else None
        self.scale = nn.Parameter(torch.ones(1)) if len(layers) > 1 else None
        if specials == "keep" and not self.around.before:
            raise ValueError(f"specials=keep: {path} puts no special piece before a text; use specials=drop")
        self.backbone.pieces_table().sparse = sparse
        if lora is None:
            freeze(self.backbone, frozen)
        elif frozen:
            raise ValueError(f"frozen={frozen}: with lora only the adapters are trained; use frozen=[]")
        if sparse and not self.backbone.pieces_table().weight.requires_grad:
            raise ValueError("sparse=true: the vectors of pieces are not trained, so use sparse=false")
        self.frozen = not any(parameter.requires_grad for parameter in self.backbone.parameters())
        self.base = BaseWeights(self, ("backbone.",))
        self.keeps_base = keeps_base(files, source, self.base, self.frozen or lora is not None, save_base, loaded)
        if cache and not self.frozen:
            raise ValueError("cache=true: the vectors of a transformer that is trained change; use frozen=[all]")
        self.cached: VectorCache | StandIn | None = None
        self.cache = cache
        self.learning_rate_factors = factors_of(self.backbone, rate, layer_decay, prefix="backbone.")
        self.output_size = self.backbone.size * (2 if pool == "first_last" else 1)
        self.dropout = Dropout(dropout)
        self.work = {"real": 0, "padded": 0, "windows": 0}
        self.extend_vocabulary(vocabs)

    def extend_vocabulary(self, vocabs: Mapping[str, Vocab]) -> None:
        """Cut the words of extended vocabularies into pieces (see `runner.text.features.extend_vocabulary`)."""
        vocab = vocabs[self.feature]
        self.table, self.eos = cut_words(vocab, self.tokenizer, self.around), vocab.eos

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids of words to rows of (length, D), in the same layout; with specials=keep, rows are longer by one."""
        words = features[self.feature]
        if self.cached is not None and (found := self.cached.look_up(words)) is not None:
            vectors = copy_to_device(found.numpy(), words.values.device)
            rows = words.rows if self.specials == "drop" else _longer(words.rows)
            result = self._mix([Ragged(vectors[:, place], rows, "packed") for place in range(vectors.shape[1])])
        else:
            layers, laid = self._read(words)
            result = self._per_word(self._mix(layers).tokens(), laid, words.rows)
        return self.dropout.apply_to(result.pad() if words.layout == "padded" else result)

    def _read(self, words: Ragged) -> tuple[list[Ragged], Windows]:
        """Return the vectors of pieces of the chosen layers, and the windows that were read; no gradients if frozen."""
        laid = self._windows(words)
        device = words.values.device
        seeds = words.rows.seeds  # a window has that of its row
        longest = max(1, int(laid.lengths.max(initial=0)))
        rows = Rows(laid.lengths, device, longest + -longest % words.rows.width_multiple)
        rows = rows.with_seeds(None if seeds is None else seeds.index_select(0, rows.send(laid.row)))
        ids = Ragged(copy_to_device(laid.pieces, device), rows, "packed", laid.pieces)
        self._count(rows, words.layout)
        segments = None
        if self.around.second_segment and self.backbone.n_segments > 1:
            segments = ids.with_values(rows.send(laid.segments))

        def run(ids: Ragged, segments: Ragged | None) -> list[Ragged]:
            if words.layout == "padded":
                ids, segments = ids.pad(self.backbone.pad), None if segments is None else segments.pad()
            layers: list[Ragged] = self.backbone(ids, None if segments is None else segments.values, self.needs_all)
            return layers

        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            layers = run_windows(run, laid, ids, segments, self.training)
        return [layers[layer] for layer in self.layers] if self.needs_all else layers, laid

    def _windows(self, words: Ragged) -> Windows:
        ids = words.on_host().astype(np.int64)
        return windows_of(ids, words.rows, self.table, self.around, self.longest, self.overlap, self.eos)

    def read_splits(self, splits: Mapping[str, Batch], cache_dir: Path | None) -> str | None:
        """Compute or read the vectors of all rows (`runner.interfaces.ReadsSplits`), if they are to be cached."""
        if not self.cache:
            return None
        parameter = next(self.backbone.parameters())
        key = json.dumps(
            [
                1,
                hash_of(self.backbone.state_dict()),
                self.layers,
                self.pool,
                self.specials,
                self.longest,
                self.overlap,
                str(parameter.dtype),
                parameter.device.type,
                torch.__version__,
            ]
        )
        folder = None if cache_dir is None else cache_dir / "pretrained_vectors"
        cached, was_training, start = VectorCache(folder, key), self.training, time.perf_counter()
        self.eval()
        for name in sorted(splits):
            words = splits[name].features[self.feature]
            laid = self._windows(words)
            pieces = np.split(np.stack([laid.pieces, laid.segments]), np.cumsum(laid.lengths)[:-1], axis=1)
            by_row = [b""] * words.rows.n_rows
            for row, window in zip(laid.row.tolist(), pieces, strict=True):
                by_row[row] += window.tobytes()
            cached.add(words, by_row, int(self.specials == "keep"), lambda rows: self._vectors(rows, parameter.device))
        self.train(was_training)
        self.cached = cached
        self.has_attention = False
        how = f"computed in {time.perf_counter() - start:.1f} s" if cached.n_computed else "read"
        where = "in memory" if folder is None else f"in {folder}"
        return f"{self.source.source}: vectors of frozen layers {how}, {cached.n_bytes / 1e6:,.1f} MB {where}"

    def assume_read(self) -> None:
        """Return zeros as the vectors of any row from now on, if they are to be cached."""
        if self.cache:
            self.cached = StandIn((len(self.layers), self.output_size), int(self.specials == "keep"))
            self.has_attention = False

    @torch.no_grad()
    def _vectors(self, words: Ragged, device: torch.device) -> Tensor:
        """Return the vectors of rows of words, (N, layers, D), before layers are averaged."""
        words = words.to(device)
        layers, laid = self._read(words)
        return torch.stack([self._per_word(layer.tokens(), laid, words.rows).values for layer in layers], dim=1)

    def _mix(self, chosen: list[Ragged]) -> Ragged:
        """Return the chosen layer, or the average of the chosen ones by learned weights."""
        if self.mix is None or self.scale is None:
            return chosen[0]
        weights = self.scale * self.mix.softmax(dim=0)
        return chosen[0].with_values(sum(weight * layer.values for weight, layer in zip(weights, chosen, strict=True)))

    def _per_word(self, vectors: Tensor, laid: Windows, rows: Rows) -> Ragged:
        """Return a vector for each word, and for each row's special piece if kept, given those of pieces (M, size)."""
        ends = np.cumsum(laid.word_lengths)
        if self.pool == "mean":
            by_word = Rows(laid.word_lengths, rows.device)
            pieces = vectors.index_select(0, rows.send(laid.place))
            pooled = mean_pool(Ragged(pieces, by_word, "packed")).to(vectors.dtype)
        elif not len(laid.place):
            pooled = vectors.new_zeros(rows.n_tokens, self.output_size)
        else:
            # only padding has no pieces; it takes those of another word
            last = len(laid.place) - 1
            at = {"first": ends - laid.word_lengths, "last": ends - 1}
            chosen = [name for name in at if name in self.pool.split("_")]
            pooled = torch.cat(
                [vectors.index_select(0, rows.send(laid.place[np.clip(at[name], 0, last)])) for name in chosen], dim=-1
            )
        if self.specials == "drop":
            return Ragged(pooled, rows, "packed")
        first = vectors.index_select(0, rows.send(laid.first))
        first = torch.cat([first, first], dim=-1) if self.pool == "first_last" else first
        longer = _longer(rows)
        # for each token of the longer rows, its index among the first pieces followed by the words
        source = np.arange(longer.n_tokens) - np.repeat(np.arange(rows.n_rows) + 1, longer.host_lengths)
        source = source + rows.n_rows
        source[longer.host_offsets[:-1]] = np.arange(rows.n_rows)
        return Ragged(torch.cat([first, pooled]).index_select(0, rows.send(source)), longer, "packed")

    def _count(self, rows: Rows, layout: str) -> None:
        self.work["real"] += rows.n_tokens
        if layout == "padded" or self.backbone.always_pads:
            self.work["padded"] += rows.n_rows * rows.width - rows.n_tokens
        self.work["windows"] += rows.n_rows

    def counters(self) -> dict[str, dict[str, int]]:
        """Return the numbers of real and padded pieces and of windows so far (`runner.interfaces.HasCounters`)."""
        return {} if self.cache else {"pieces": {**self.work}}

    def count_pieces(self, split: Batch) -> PieceCounts | None:
        """Return the number of pieces of each row of a split (`runner.interfaces.ReadsPieces`); None if cached."""
        if self.cache:
            return None
        words = split.features[self.feature]
        lengths = window_lengths(
            words.on_host().astype(np.int64), words.rows, self.table, self.around.count, self.longest, self.overlap
        )
        by_row = lengths.reshape(len(split.index), split.texts * lengths.shape[1])
        return PieceCounts(by_row[:, 0] if by_row.shape[1] == 1 else by_row, self.backbone.always_pads)

    def describe(self, splits: Mapping[str, Batch]) -> Description:
        """Return the model and the number of pieces of each split (`runner.interfaces.HasDescription`)."""
        per_word = np.diff(self.table.offsets)
        limit = None if self.longest is None else self.longest - self.around.count
        pieces, long_rows = {}, {}
        for name, split in splits.items():
            words = split.features[self.feature]
            ends = np.concatenate(([0], np.cumsum(per_word[words.on_host()])))
            of_row = np.diff(ends[words.rows.host_offsets])
            pieces[name] = int(ends[-1])
            long_rows[name] = 0 if limit is None else int((of_row > limit).sum())
        entry = {
            "feature": self.feature,
            "path": self.source.source,
            "model": self.backbone.kind,
            "layers": self.backbone.n_layers,
            "size": self.backbone.size,
            "vocabulary": self.backbone.vocabulary,
            "layout": "padded" if self.backbone.always_pads else "as the batch",
            "tokenizer": tokenizer_hash(self.source.folder),
            "unknown_words": self.table.unknown,
            "pieces": pieces,
            "rows_in_windows": long_rows,
            **self.not_fitting,
        }
        shown = ", ".join(f"{name} {count:,}" for name, count in pieces.items())
        model = f"{entry['model']}, {self.backbone.n_layers} layers of {self.backbone.size}"
        line = f"{self.source.source} ({model}): pieces {shown}"
        return Description("pretrained", entry, line + notes_on(self.backbone, long_rows, limit, self.not_fitting))

    def save_files(self, folder: Path) -> None:
        """Write the configuration and the tokenizer to a run's folder (`runner.interfaces.HasFiles`)."""
        target = copy_files(self.source, folder)
        write_base(target, None if self.keeps_base else self.base_hash())
        if isinstance(self.backbone, StaticTable):  # a table's configuration does not contain its size
            shape = {"vocab_size": self.backbone.vocabulary, "hidden_dim": self.backbone.size}
            write_text(target / CONFIG, json.dumps({**self.source.read_config(), **shape}))

    def write_folder(self, folder: Path) -> float:
        """Write the transformer, in transformers' format, to a new folder (`runner.interfaces.WritesFolder`)."""
        whole = None if isinstance(self.backbone, StaticTable) else self.backbone.transformer()
        return write_folder(folder, self.source, self.backbone, whole)

    def layers_in_turn(self, lengths: IntArray) -> Sequence[nn.Module]:
        """Return the layers of the transformer (`runner.interfaces.HasLayers`)."""
        return layers_in_turn(self.backbone, lengths)

    def base_names(self) -> set[str]:
        """Return the names of the pretrained model's tensors (`runner.interfaces.HasBaseWeights`)."""
        return self.base.names()

    def base_hash(self) -> str:
        """Return the hash of the pretrained model's tensors."""
        return self.base.hash(is_fixed=not self.keeps_base)

    def _layer(self, layer: int) -> int:
        most = self.backbone.n_layers
        if not -most - 1 <= layer <= most:
            raise ValueError(f"layers: {layer} is not one of -{most + 1} to {most}; 0 is the model's input, -1 its end")
        return layer % (most + 1)


def notes_on(
    backbone: PieceModel, long_rows: Mapping[str, int], longest: int | None, not_fitting: Mapping[str, Sequence[str]]
) -> str:
    """Return what a user should know of a model, as the end of a line: windows, padding, weights that do not fit.

    `long_rows` has the number of rows longer than `longest` pieces in each split.
    """
    notes = []
    if any(long_rows.values()):
        long = ", ".join(f"{name} {count:,}" for name, count in long_rows.items())
        notes.append(f"rows longer than {longest} pieces are read in overlapping windows: {long}")
    if backbone.always_pads:
        notes.append("it runs padded under every strategy, since its attention cannot keep packed rows apart")
    if missing := not_fitting.get("missing"):
        notes.append(f"not in the file, so at random: {len(missing)} weights, such as {printable(missing[0])}")
    if unused := not_fitting.get("unexpected"):
        notes.append(f"not used: {len(unused)} weights of the file, such as {printable(unused[0])}")
    return "".join(f"; {note}" for note in notes)


def copy_files(source: PretrainedFiles, folder: Path) -> Path:
    """Copy the configuration and the tokenizer of a model into a run's folder; return where they are."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for pattern in (CONFIG, *TOKENIZER):
        for file in source.folder.glob(pattern):
            if file.parent != target:
                shutil.copyfile(file, target / file.name)
    return target


def longest_window(backbone: PieceModel, window: int | None, overlap: int, n_special: int) -> int | None:
    """Return the maximum number of pieces that a model reads at once, special ones included; None: no limit.

    Raises:
        ValueError: `window` is more than the model can read, or `overlap` fills the window.
    """
    most = backbone.max_pieces
    if window is not None and most is not None and window > most:
        raise ValueError(f"window={window}, but the model has positions for {most} pieces")
    longest = most if window is None else window
    if longest is not None and longest - n_special <= overlap:
        raise ValueError(f"overlap={overlap} must be less than the {longest - n_special} pieces of a window")
    return longest


def check_tokenizer(source: PretrainedFiles, tokenizer: PreTrainedTokenizerFast, backbone: PieceModel) -> None:
    """Raise a HydromelError if a tokenizer has more pieces than the model has vectors."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= backbone.vocabulary:
        raise HydromelError(
            f"embedding.path={source.source}: the tokenizer has a piece number {largest:,}, but the model has vectors "
            f"for {backbone.vocabulary:,} pieces; they do not belong together"
        )


def _longer(rows: Rows) -> Rows:
    """Return the rows with a token more at the start of each, for a special piece."""
    longer = Rows(rows.host_lengths + 1, rows.device).with_seeds(rows.seeds)
    longer.stepwise = rows.stepwise
    return longer


def is_table(files: PretrainedFiles) -> bool:
    """Return True if the files are those of a table of vectors without context."""
    return files.read_config().get("model_type") == STATIC


def tokenizer_hash(folder: Path) -> str:
    """Return a hash of the files of a tokenizer, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for pattern in TOKENIZER:
        for file in sorted(folder.glob(pattern)):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
