"""Normal forms of words, compared with `str.lower` and `unicodedata`, on every character and on hard words."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.types import UnicodeForm
from runner.text.normal_forms import normal_bytes, normal_form, normal_forms
from runner.text.vocab import Feature

HARD = [
    ("ΟΔΟΣ", "οδος"),  # a sigma at the end of a word
    ("ΣΟΣ", "σος"),
    ("İstanbul", "i\u0307stanbul"),  # two characters
    ("STRASSE", "strasse"),
    ("Straße", "straße"),
    ("ẞ", "ß"),
    ("E\u0301", "\u00e9"),
    ("ǅ", "ǆ"),
    ("Ω", "ω"),  # OHM SIGN
    ("K", "k"),  # KELVIN SIGN
]


@pytest.mark.parametrize(("word", "expected"), HARD)
def test_lower_case_of_hard_words(word: str, expected: str) -> None:
    assert normal_form(word, "NFC", lowercase=True) == expected == unicodedata.normalize("NFC", word.lower())
    assert normal_form(word, "none", lowercase=True) == word.lower()


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
def test_every_character_as_a_column(form: UnicodeForm, lowercase: bool) -> None:
    words = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    words += [word for pair in HARD for word in pair]
    actual = normal_forms(pa.array([*words, None], pa.string()), form, lowercase).to_pylist()
    expected = words if form == "none" else [unicodedata.normalize(form, word) for word in words]
    if lowercase:
        expected = [word.lower() for word in expected]
        expected = expected if form == "none" else [unicodedata.normalize(form, word) for word in expected]
    assert actual == [*expected, None]
    assert [normal_form(word, form, lowercase) for word in expected] == expected, "a normal form stays as it is"


@given(st.text(), st.sampled_from(["NFC", "NFKC", "none"]))
def test_words_of_files_and_of_texts_agree(word: str, form: UnicodeForm) -> None:
    assert normal_bytes(word.encode(), form).decode() == normal_form(word, form, lowercase=False)


def test_bytes_that_are_not_utf8_stay() -> None:
    assert normal_bytes(b"\xe9", "NFC") == b"\xe9"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("NFC", ["\u00e9", "\u00e9", "\ufb01"]),
        ("NFKC", ["\u00e9", "\u00e9", "fi"]),
        ("none", ["e\u0301", "\u00e9", "\ufb01"]),
    ],
)
def test_words_of_a_vocabulary(form: UnicodeForm, expected: list[str]) -> None:
    options = {"lowercase": False, "digits_to_zero": False, "min_count": 1, "max_size": None, "extend": False}
    feature = Feature(column="tokens", unicode=form, **options)  # type: ignore[arg-type]
    table = pa.table({"tokens": [["e\u0301", "\u00e9"], ["\ufb01"]]})
    assert feature.strings(table).to_pylist() == expected
    assert feature.vocab([table]).unicode == form
    assert set(feature.vocab([table]).strings) == set(expected)
