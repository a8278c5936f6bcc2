"""The vectorised splits, compared with Python's."""

from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from runner.text.arrow import offsets_of, split_characters, split_on_spaces, utf8_bytes

TEXTS = st.lists(st.text(st.sampled_from("ab \t\xa0\ufeffé😂\u2028"), max_size=12), max_size=8)


@given(TEXTS, st.integers(0, 3))
def test_split_on_spaces(texts, start):
    actual = split_on_spaces(pa.array(texts, pa.string())[start:]).to_pylist()
    assert actual == [[piece for piece in text.split(" ") if piece] for text in texts[start:]]


@given(TEXTS, st.integers(0, 3))
def test_split_characters(texts, start):
    assert split_characters(pa.array(texts, pa.string())[start:]).to_pylist() == [list(text) for text in texts[start:]]


@given(TEXTS, st.integers(0, 3))
def test_bytes_and_offsets_of_slices(texts, start):
    column = pa.array([[text] * 2 for text in texts], pa.list_(pa.string()))[start:]
    assert offsets_of(column).tolist() == [2 * place for place in range(len(texts[start:]) + 1)]
    data, offsets = utf8_bytes(column.flatten())
    cut = [bytes(data[first:last]).decode() for first, last in pairwise(offsets)]
    assert cut == [text for text in texts[start:] for _ in range(2)]
