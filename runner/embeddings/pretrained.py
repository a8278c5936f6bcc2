"""Pretrained vectors of a file beside learned ones for the words that it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError, no_feature
from runner.common.types import Fraction, NonNegativeFloat
from runner.embeddings.concat import Splits
from runner.embeddings.unk_dropout import SomeUnknown
from runner.embeddings.vector_files.load import VectorFile, find_vectors, fingerprint
from runner.embeddings.vector_files.table import Found, Table
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged
from runner.text.vocab import EOS, PAD, UNK, Vocab

_SPECIAL = (PAD, UNK, EOS)


class Vectors(nn.Module):
    """Look up a vector for each token: the file's where it has the word, else one that is learned.

    Two tables: rows of the file, at a learning rate of their own, and rows for `<unk>`, `<eos>` and words of train that
    the file lacks, which always learn at the full rate; they begin with the mean and the spread (standard deviation, by
    dimension) of the file's rows. `<pad>` (id 0) is the zero vector and stays so. Both tables are part of a checkpoint.

    Args:
        vocabs: of all features.
        feature: which one to embed. With `extend`, words of the data that training does not know are looked up too.
        data_dir: folder that `path` is relative to (null: it must be absolute).
        path: of the file; its content tells the format (`runner.embeddings.vector_files`).
        lowercase_if_missing: a word that the file lacks gets the vector of the word in lower case, and shares its row.
        rate: of learning, for the file's rows, times the optimiser's: 0 frozen, 1 fine-tuned, between: more slowly.
        storage: of the file's rows; float16 halves their memory, for frozen ones.
        unk_rate: share of words that are `<unk>` in training (`runner.embeddings.unk_dropout`).
        dropout: probability of dropping a number of a vector.

    Raises:
        HydromelError: no feature of that name; a file that is missing, malformed, or without any word of the feature.
        ValueError: float16 rows that are to be trained.
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: str,
        data_dir: str | None,
        path: str,
        lowercase_if_missing: bool,
        rate: NonNegativeFloat,
        storage: Literal["float32", "float16"],
        unk_rate: Fraction,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if feature not in vocabs or feature == "target":
            raise no_feature(feature, vocabs)
        if rate and storage == "float16":
            raise ValueError(f"storage=float16 is for frozen vectors; use rate=0 or storage=float32 (rate={rate})")
        self.feature, self.path = feature, _resolve(path, data_dir)
        vocab = vocabs[feature]
        words = [word for word in vocab.tokens if word not in _SPECIAL]
        if not words:
            raise HydromelError(
                f"features.{feature} has no words to look up in {self.path}; its min_count or max_size leaves none"
            )
        found = find_vectors(self.path, words, lowercase_if_missing)
        self.lowercase_if_missing, self.unk = lowercase_if_missing, vocab.unk or 0
        if not len(found.table):
            raise HydromelError(
                f"{self.path}: none of the {len(words):,} words of features.{feature} is in this file "
                f"({found.format}); is it of this language and casing? (embedding.lowercase_if_missing)"
            )
        self.file = {"fingerprint": fingerprint(self.path), "format": found.format, "words": found.words_in_file}
        self.opened: VectorFile | None = None  # once there is new text
        self.asked, self.composed = len(words), found.composed
        place, self.n_own = _places(vocab, found)
        self.register_buffer("place", torch.from_numpy(place))
        self.place: Tensor
        rows = torch.from_numpy(found.table)
        self.own = nn.Parameter(_drawn(self.n_own, rows))
        if rate:
            self.rows: Tensor = nn.Parameter(rows)
        else:
            self.register_buffer("rows", _bits(rows, self.path) if storage == "float16" else rows)
        self.rates = {"rows": rate} if rate else {}  # see `optimizers.parameters_by_rate`
        self.output_size, self.at_start = rows.shape[1], (len(vocab), len(rows))
        self.some_unknown = SomeUnknown(vocab, unk_rate)
        self.dropout = Dropout(dropout)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Ids -> rows of (length, D)."""
        ids: Ragged = self.some_unknown(features[self.feature])
        return self.dropout.of(ids.map(self._look_up))

    def _look_up(self, ids: Tensor) -> Tensor:
        place = F.embedding(ids, self.place)[..., 0]
        in_file = place >= self.n_own
        rows = F.embedding((place - self.n_own).clamp(min=0), self.rows)
        if rows.dtype == torch.int16:
            rows = rows.view(torch.float16).to(self.own.dtype)
        own = F.embedding(place.masked_fill(in_file, 0), self.own, padding_idx=0)
        return torch.where(in_file[..., None], rows, own)

    def admit(self, vocabs: Mapping[str, Vocab]) -> None:
        """Look up the words of a vocabulary that has grown since; see `runner.text.open_vocabulary`. A checkpoint is
        loaded before.

        A new word shares the row of a known one where both fall back to the same form of the file.
        """
        tokens, (n_words, n_rows) = vocabs[self.feature].tokens, self.at_start
        place, rows = self.place[:n_words], self.rows[:n_rows].detach()
        if len(tokens) > n_words:
            self.opened = self.opened or VectorFile(self.path)
            table, row_of_word = self.opened.find(
                [word for word in tokens if word not in _SPECIAL], self.lowercase_if_missing
            )
            more, needed = _more_places(
                tokens, table, row_of_word, place[:, 0].cpu().numpy(), self.n_own + n_rows, self.unk
            )
            added = torch.from_numpy(table[needed])
            added = _bits(added, self.path) if rows.dtype == torch.int16 else added.to(rows.dtype)
            place = torch.cat([place, torch.from_numpy(more)[:, None].to(place.device)])
            rows = torch.cat([rows, added.to(rows.device)])
        self.place, self.rows = place, nn.Parameter(rows) if isinstance(self.rows, nn.Parameter) else rows

    def describe(self, splits: Splits) -> dict[str, Any]:
        """What `result.json` says of these vectors; waits for the device."""
        covered = (self.place >= self.n_own)[:, 0].cpu()
        return {
            "path": str(self.path),
            **self.file,
            "size": self.output_size,
            "rows": len(self.rows),
            "asked_words": self.asked,
            "covered_words": int(covered.sum()),
            "composed_words": self.composed,
            "coverage": {name: _share(covered, split.features[self.feature]) for name, split in splits.items()},
        }


def describe_vectors(model: nn.Module, splits: Splits) -> list[dict[str, Any]]:
    """What `result.json` says of each file of vectors in the model."""
    return [module.describe(splits) for module in model.modules() if isinstance(module, Vectors)]


def line_of(described: Mapping[str, Any]) -> str:
    """What the console says of a file of vectors."""
    shares = ", ".join(f"{split} {100 * share:.1f} %" for split, share in described["coverage"].items())
    return (
        f"{described['path']} ({described['format']}, {described['words']:,} words of {described['size']} numbers): "
        f"{described['covered_words']:,} of {described['asked_words']:,} words found; tokens of {shares}"
    )


def _places(vocab: Vocab, found: Found) -> tuple[IntArray, int]:
    """(V, 1) the row of each id among own rows, then the file's; and how many own rows there are.

    Words that training does not know (`Vocab.extra`) and that the file lacks are `<unk>`.
    """
    special = [place for place, word in enumerate(vocab.tokens) if word in _SPECIAL]
    in_file = np.full(len(vocab), -1, dtype=np.int64)
    in_file[np.setdiff1d(np.arange(len(vocab)), special)] = found.row_of_word
    own = (in_file < 0) & (np.arange(len(vocab)) < vocab.known)
    n_own = int(own.sum())
    place = np.where(own, np.cumsum(own) - 1, n_own + in_file)
    assert vocab.tokens[0] == PAD
    lost = (in_file < 0) & ~own
    place[lost] = place[vocab.unk]
    return place[:, None], n_own


def _more_places(
    tokens: Sequence[str], table: Table, row_of_word: IntArray, place: IntArray, first: int, unk: int
) -> tuple[IntArray, IntArray]:
    """The place of each token behind those that have one, and which rows of `table` are new.

    Args:
        tokens: V, of which all but the special ones were looked for.
        table: (R, D) that was found.
        row_of_word: of each token that was looked for (-1: none).
        place: (K,) of the first K tokens.
        first: of the new rows, in the order in which they are given.
        unk: whose place tokens have that the file lacks.
    """
    row = np.full(len(tokens), -1)
    row[[word not in _SPECIAL for word in tokens]] = row_of_word
    old, new = row[: len(place)], row[len(place) :]
    place_of_row = np.full(len(table), -1)
    place_of_row[old[old >= 0]] = place[old >= 0]
    needed = np.unique(new[(new >= 0) & (place_of_row[new] < 0)])
    place_of_row[needed] = first + np.arange(len(needed))
    return np.where(new >= 0, place_of_row[new], place[unk]), needed


def _drawn(n: int, rows: Tensor) -> Tensor:
    """(n, D) of the mean and spread of `rows` (R, D); the first, of `<pad>`, is zero."""
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    drawn = mean + variance.sqrt() * torch.randn(n, rows.shape[1])
    drawn[0] = 0
    return drawn


def _bits(rows: Tensor, path: Path) -> Tensor:
    """float16 numbers as the int16 of their bits: `Module.to(dtype)` would widen floats."""
    half = rows.half()
    if not half.isfinite().all():
        raise HydromelError(f"{path}: holds numbers that float16 cannot; use embedding.storage=float32")
    return half.view(torch.int16)


def _share(covered: Tensor, ids: Ragged) -> float:
    """Of running tokens, 0 to 1."""
    tokens = ids.tokens().cpu()
    return float(covered[tokens].double().mean()) if len(tokens) else 0.0


def _resolve(path: str, data_dir: str | None) -> Path:
    """`path` in the folder of data, unless it is absolute."""
    file = Path(path).expanduser()
    if not file.is_absolute() and data_dir is None:
        raise HydromelError(f"embedding.path={path} is relative to data_dir; give data_dir=FOLDER, or a whole path")
    return file if file.is_absolute() else Path(str(data_dir)).expanduser() / file
