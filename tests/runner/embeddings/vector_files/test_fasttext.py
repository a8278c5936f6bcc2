"""fastText models written by fastText (fasttext/make.py in this folder), compared with its own results."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from runner.embeddings.vector_files.fasttext import ngram_hashes
from runner.embeddings.vector_files.load import VectorFile

FOLDER = Path(__file__).parent / "fasttext"
SAID: dict[str, dict[str, Any]] = json.loads((FOLDER / "said.json").read_text(encoding="utf-8"))
MODELS = sorted(SAID)
FORMATS = {
    "skipgram": "fastText .bin",
    "quantised": "fastText .bin, quantised",
    "pruned": "fastText .bin, quantised",
}
_VERSION, _KIND_OF_MODEL, _LONGEST = 4, 8 + 7 * 4, 8 + 10 * 4  # bytes of the header


def test_there_are_models() -> None:
    assert set(MODELS) == set(FORMATS)


@pytest.mark.parametrize("name", MODELS)
def test_every_vector_is_what_fasttext_says(name: str) -> None:
    output = SAID[name]
    words = list(output["vectors"])
    actual = VectorFile(FOLDER / f"{name}.bin").find(words, lowercase_if_missing=False)
    assert (actual.format, actual.words_in_file) == (FORMATS[name], output["words"])
    for word, row in zip(words, actual.row_of_word, strict=True):
        got = actual.table[row] if row >= 0 else np.zeros(10)  # fastText has zeros where no n-gram is known
        np.testing.assert_allclose(got, output["vectors"][word], rtol=1e-5, atol=1e-7)
    assert actual.composed == np.sum(actual.row_of_word >= 0) - len(output["known"]) > 0
    assert len(actual.table) == len(set(actual.row_of_word) - {-1})


def test_lower_case_comes_before_ngrams() -> None:
    actual = VectorFile(FOLDER / "skipgram.bin").find(["ka", "KA", "Ka", "KAX"], lowercase_if_missing=True)
    assert actual.row_of_word.tolist() == [0, 0, 0, 1]
    assert actual.composed == 1


def hash_of(ngram: str) -> int:
    """Compute FNV-1a over sign-extended bytes, like `Dictionary::hash`."""
    value = 2166136261
    for byte in ngram.encode():
        value = ((value ^ ((byte - 256 if byte > 127 else byte) % 2**32)) * 16777619) % 2**32
    return value


def slow_ngrams(word: str, shortest: int, longest: int) -> list[str]:
    bounded = f"<{word}>"
    spans = [bounded[i : i + n] for n in range(max(1, shortest), longest + 1) for i in range(len(bounded) - n + 1)]
    return [
        span for place, span in enumerate(spans) if span not in ("<", ">") or 0 < place % len(bounded) < len(word) + 1
    ]


def test_hashes_by_hand() -> None:
    assert hash_of("a") == 0xE40C292C  # as in FNV's own test vectors
    assert hash_of("é") % 200 == 177  # what `get_subword_id` of the skipgram model says, less its 89 words
    hashes, owner = ngram_hashes([b"a"], 2, 3)
    assert hashes.tolist() == [hash_of(item) for item in ("<a", "a>", "<a>")]
    assert owner.tolist() == [0, 0, 0]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="<>\0"), max_size=7), max_size=6),
    st.integers(0, 4),
    st.integers(0, 5),
)
def test_hashes_are_those_of_a_slow_reference(words: list[str], shortest: int, longest: int) -> None:
    hashes, owner = ngram_hashes([word.encode() for word in words], shortest, longest)
    want = [
        (place, hash_of(slow_ngram))
        for place, word in enumerate(words)
        for slow_ngram in slow_ngrams(word, shortest, longest)
    ]
    assert list(zip(owner.tolist(), hashes.tolist(), strict=True)) == want


@pytest.mark.parametrize("name", MODELS)
def test_a_model_truncated_anywhere_raises_a_one_line_error(name: str, tmp_path: Path) -> None:
    whole, cut = (FOLDER / f"{name}.bin").read_bytes(), tmp_path / "cut.bin"
    for end in [*range(4, 160), *range(160, len(whole), 211), len(whole) - 1]:
        cut.write_bytes(whole[:end])
        with pytest.raises(HydromelError, match=r"^[^\n]*cut\.bin: truncated or damaged: [^\n]*$"):
            VectorFile(cut).find(["ka"], lowercase_if_missing=False)


@pytest.mark.parametrize("name", MODELS)
def test_a_damaged_model_raises_a_one_line_error_or_loads(name: str, tmp_path: Path) -> None:
    whole, path, rng = (FOLDER / f"{name}.bin").read_bytes(), tmp_path / "damaged.bin", random.Random(1)
    complaints = []
    for _ in range(300):
        at = rng.choice([rng.randrange(4, 100), rng.randrange(4, len(whole) - 4)])
        path.write_bytes(whole[:at] + rng.randbytes(4) + whole[at + 4 :])
        try:
            VectorFile(path).find(["ka", "unseen"], lowercase_if_missing=False)
        except HydromelError as error:
            complaints.append(str(error))
    assert len(complaints) > 20
    assert not any("\n" in complaint for complaint in complaints)


def patched(path: Path, at: int, *numbers: int) -> Path:
    whole = (FOLDER / "quantised.bin").read_bytes()
    path.write_bytes(whole[:at] + struct.pack(f"<{len(numbers)}i", *numbers) + whole[at + 4 * len(numbers) :])
    return path


def test_models_of_labels_of_version_11_have_no_ngrams(tmp_path: Path) -> None:
    actual = VectorFile(patched(tmp_path / "old.bin", _VERSION, 11)).find(["ka", "unseen"], lowercase_if_missing=False)
    assert actual.row_of_word.tolist() == [0, -1]
    bare = VectorFile(patched(tmp_path / "bare.bin", _LONGEST, 0)).find(["ka", "unseen"], lowercase_if_missing=False)
    assert np.array_equal(actual.table, bare.table)
    assert not np.allclose(actual.table[0], SAID["quantised"]["vectors"]["ka"])
    assert struct.unpack_from("<i", (FOLDER / "quantised.bin").read_bytes(), _KIND_OF_MODEL) == (3,)


def test_other_versions_are_named(tmp_path: Path) -> None:
    with pytest.raises(HydromelError, match=r"model of version 10; use one of version 11 or 12"):
        VectorFile(patched(tmp_path / "older.bin", _VERSION, 10)).find(["ka"], lowercase_if_missing=False)


def test_a_number_that_is_not_finite_is_named(tmp_path: Path) -> None:
    whole = (FOLDER / "skipgram.bin").read_bytes()
    row = np.float32(SAID["skipgram"]["vectors"]["ka"][0])
    assert row
    broken = tmp_path / "nan.bin"
    begin = len(whole) - 4 * 10 * 89 - 17 - 4 * 10 * (200 + 89)  # the output matrix stands behind the input one
    broken.write_bytes(whole[:begin] + struct.pack("<f", float("nan")) * (10 * 289) + whole[begin + 40 * 289 :])
    with pytest.raises(HydromelError, match=r"nan\.bin: the vector of 'ka' contains a number that is not finite"):
        VectorFile(broken).find(["ka"], lowercase_if_missing=False)
