"""Pieces of real text, by tokenizers that are trained on it: those of transformers for rows of words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runner.embeddings.pretrained_transformer.pieces import Specials, cut_words
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.published import DATA

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import trained_tokenizer


@pytest.mark.data
@pytest.mark.parametrize("family", ["wordpiece cased", "byte-level bpe", "unigram xlm-r", "unigram t5"])
@pytest.mark.parametrize("n_rows", [300, pytest.param(None, marks=pytest.mark.campaign)])
def test_words_are_cut_as_in_whole_rows(family: str, n_rows: int | None) -> None:
    wnut = (Path(DATA) / "tagging/wnut17/wnut17train.conll").read_text(encoding="utf-8").replace("\t\n", "\n")
    sst2 = (Path(DATA) / "classification/sst2/stsa.binary.train").read_text(encoding="utf-8")
    sentences = [[line.split("\t")[0] for line in part.splitlines()] for part in wnut.split("\n\n")]
    for data_set in (sentences, [line.split()[1:] for line in sst2.splitlines()]):
        rows = [row for row in data_set if row][:n_rows]
        tokenizer = trained_tokenizer(family, (" ".join(row) for row in rows))
        vocab = Vocab(tuple(dict.fromkeys(word for row in rows for word in row)), SPECIALS)
        table = cut_words(vocab, tokenizer, Specials.of(tokenizer))
        cut = np.split(table.pieces, table.offsets[1:-1])
        by_word = {word: cut[place].tolist() for place, word in enumerate(vocab.tokens)}
        expected = tokenizer(rows, is_split_into_words=True, add_special_tokens=False)["input_ids"]
        assert [[piece for word in row for piece in by_word[word]] for row in rows] == expected
