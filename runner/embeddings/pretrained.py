"""Pretrained vectors from a file, with learned vectors for the words that the file lacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import FilePath, Fraction, Name, NonNegativeFloat
from runner.embeddings.vector_files.load import VectorFile, fingerprint
from runner.embeddings.vector_files.table import FoundVectors
from runner.embeddings.word import UnkDropout
from runner.interfaces import Description
from runner.layers.dropout import Dropout
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab, vocab_of


class PretrainedEmbedding(nn.Module):
    """An embedding that takes a word's vector from a file, or learns one if the file lacks the word.

    It has two tables, both part of a checkpoint. One holds rows of the file, with a separate learning rate. The other
    holds rows for `<unk>`, `<eos>` and words of the training set that the file lacks; they learn at the full rate, and
    are initialised with the mean and standard deviation, per dimension, of the file's rows. `<pad>` (id 0) is always
    the zero vector.

    Args:
        feature: the feature to embed. With `extend`, words of the data outside the training set are looked up too.
        data_dir: folder that `path` is relative to (null: the working directory).
        path: path of the file; its format is detected by content (`runner.embeddings.vector_files`).
        lowercase_if_missing: use the lower-case word's vector, and share its row, for words that the file lacks.
        rate: learning rate of the file's rows, as a multiple of the optimiser's: 0 freezes them, 1 fine-tunes them.
        storage: precision of the file's rows; float16 halves the memory of frozen rows.
        unk_rate: share of words replaced by `<unk>` in training (`UnkDropout`).

    Raises:
        HydromelError: a file that is missing, malformed or has no word of the feature.
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: Name,
        data_dir: FilePath | None,
        path: FilePath,
        lowercase_if_missing: bool,
        rate: NonNegativeFloat,
        storage: Literal["float32", "float16"],
        unk_rate: Fraction,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        vocab = vocab_of(vocabs, feature)
        if rate and storage == "float16":
            raise ValueError(f"storage=float16 needs frozen vectors, but rate={rate}; use rate=0 or storage=float32")
        file = Path(path).expanduser()
        self.feature, self.path = feature, Path(data_dir or "").expanduser() / file
        words = [*vocab.strings]
        if not words:
            raise HydromelError(
                f"features.{feature} has no words to look up in {self.path}; lower its min_count or raise its max_size"
            )
        vectors = VectorFile(self.path, vocab.unicode).find(words, lowercase_if_missing)
        self.lowercase_if_missing, self.unk = lowercase_if_missing, vocab.unk or 0
        if not len(vectors.table):
            raise HydromelError(
                f"{self.path}: none of the {len(words):,} words of features.{feature} is in this file "
                f"({vectors.format}); check its language and casing (embedding.lowercase_if_missing)"
            )
        self.file = {
            "fingerprint": fingerprint(self.path),
            "format": vectors.format,
            "words": vectors.words_in_file,
            "duplicates": vectors.duplicates,
        }
        self._vector_file: VectorFile | None = None  # opened when `extend_vocabulary` first gets new words
        self.n_words, self.n_composed = len(words), vectors.composed
        place, self.n_own = _places(vocab, vectors)
        self.register_buffer("place", torch.from_numpy(place))
        self.place: Tensor
        rows = torch.from_numpy(vectors.table)
        self.own = nn.Parameter(_draw_rows(self.n_own, rows))
        if rate:
            self.rows: Tensor = nn.Parameter(rows)
        else:
            self.register_buffer("rows", _to_bits(rows, self.path) if storage == "float16" else rows)
        self.learning_rate_factors = {"rows": rate} if rate else {}  # `runner.interfaces.HasLearningRates`
        self.output_size, self.initial_sizes = rows.shape[1], (len(vocab), len(rows))
        self.unk_dropout, self.dropout = UnkDropout(vocab, unk_rate), Dropout(dropout)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids to rows of (length, D)."""
        ids: Ragged = self.unk_dropout(features[self.feature])
        return self.dropout.apply_to(ids.map(self._look_up))

    def _look_up(self, ids: Tensor) -> Tensor:
        # Places below n_own are rows of `own`, the others rows of the file. Both tables are read for all tokens and one
        # result is selected: selecting tokens first would synchronise with the device.
        place = F.embedding(ids, self.place)[..., 0]
        in_file = place >= self.n_own
        rows = F.embedding((place - self.n_own).clamp(min=0), self.rows)
        # Frozen float16 rows are stored as their bits (see `_to_bits`).
        if rows.dtype == torch.int16:
            rows = rows.view(torch.float16).to(self.own.dtype)
        own = F.embedding(place.masked_fill(in_file, 0), self.own, padding_idx=0)
        return torch.where(in_file[..., None], rows, own)

    def extend_vocabulary(self, vocabs: Mapping[str, Vocab]) -> None:
        """Look up the words of an extended vocabulary (see `runner.text.features.extend_vocabulary`).

        A new word shares the row of a known word if both fall back to the same form in the file.
        """
        # Start from the training vocabulary each time: the new words of an earlier call are dropped.
        vocab, (n_words, n_rows) = vocabs[self.feature], self.initial_sizes
        place, rows = self.place[:n_words], self.rows[:n_rows].detach()
        if len(vocab) > n_words:
            self._vector_file = self._vector_file or VectorFile(self.path, vocab.unicode)
            vectors = self._vector_file.find([*vocab.strings], self.lowercase_if_missing)
            more, needed = _more_places(vocab, vectors, place[:, 0].cpu().numpy(), self.n_own + n_rows, self.unk)
            added = torch.from_numpy(vectors.table[needed])
            added = _to_bits(added, self.path) if rows.dtype == torch.int16 else added.to(rows.dtype)
            place = torch.cat([place, torch.from_numpy(more)[:, None].to(place.device)])
            rows = torch.cat([rows, added.to(rows.device)])
        self.place, self.rows = place, nn.Parameter(rows) if isinstance(self.rows, nn.Parameter) else rows

    def describe(self, splits: Mapping[str, Batch]) -> Description:
        """Return the coverage of the file (`runner.interfaces.HasDescription`); synchronises with the device."""
        covered = (self.place >= self.n_own)[:, 0].cpu()
        covered_words = int(covered.sum())
        tokens = {name: split.features[self.feature].tokens().cpu() for name, split in splits.items()}
        coverage = {name: float(covered[ids].double().mean()) if len(ids) else 0.0 for name, ids in tokens.items()}
        table = {"size": self.output_size, "rows": len(self.rows)}
        words = {"asked_words": self.n_words, "covered_words": covered_words, "composed_words": self.n_composed}
        entry = {"path": str(self.path), **self.file, **table, **words, "coverage": coverage}
        shares = ", ".join(f"{split} {100 * share:.1f} %" for split, share in coverage.items())
        twice = self.file["duplicates"]
        duplicates = f", {twice:,} duplicate words (the first is used)" if twice else ""
        line = (
            f"{self.path} ({self.file['format']}, {self.file['words']:,} vectors of size "
            f"{self.output_size}{duplicates}): "
            f"{covered_words:,} of {self.n_words:,} words found; covered tokens: {shares}"
        )
        return Description("vectors", entry, line)


def _places(vocab: Vocab, vectors: FoundVectors) -> tuple[IntArray, int]:
    """Return the row (V, 1) of each id, counting own rows first and then the file's, and the number of own rows.

    Words outside the training set (`Vocab.extra`) that the file lacks use the row of `<unk>`.
    """
    in_file = np.full(len(vocab), -1, dtype=np.int64)
    in_file[len(vocab.specials) :] = vectors.row_of_word
    own = (in_file < 0) & (np.arange(len(vocab)) < vocab.known)
    n_own = int(own.sum())
    place = np.where(own, np.cumsum(own) - 1, n_own + in_file)
    assert vocab.pad == 0
    place[(in_file < 0) & ~own] = place[vocab.unk]
    return place[:, None], n_own


def _more_places(
    vocab: Vocab, vectors: FoundVectors, place: IntArray, first: int, unk: int
) -> tuple[IntArray, IntArray]:
    """Return the place (V - K,) of each new id, and the indices of the rows of the table that have to be added.

    Args:
        vocab: V ids, all strings of which were looked up.
        place: (K,) places of the first K ids, the known ones.
        first: place of the first added row.
        unk: id of `<unk>`; tokens that the file lacks get its place.
    """
    row = np.full(len(vocab), -1)
    row[len(vocab.specials) :] = vectors.row_of_word
    # Rows that a known token already uses keep its place; only the others are added.
    old, new = row[: len(place)], row[len(place) :]
    place_of_row = np.full(len(vectors.table), -1)
    place_of_row[old[old >= 0]] = place[old >= 0]
    needed = np.unique(new[(new >= 0) & (place_of_row[new] < 0)])
    place_of_row[needed] = first + np.arange(len(needed))
    return np.where(new >= 0, place_of_row[new], place[unk]), needed


def _draw_rows(n: int, rows: Tensor) -> Tensor:
    """Draw rows (n, D) with the mean and standard deviation of `rows` (R, D); the first, for `<pad>`, is zero."""
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    own = mean + variance.sqrt() * torch.randn(n, rows.shape[1])
    own[0] = 0
    return own


def _to_bits(rows: Tensor, path: Path) -> Tensor:
    """Return float16 numbers reinterpreted as int16, because `Module.to(dtype)` would convert a float16 buffer."""
    half = rows.half()
    if not half.isfinite().all():
        raise HydromelError(f"{path}: some numbers are too large for float16; use embedding.storage=float32")
    return half.view(torch.int16)
