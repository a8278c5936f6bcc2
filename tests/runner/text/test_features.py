"""Characters, casing and affixes of tokens, and the spelling of forms."""

from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from runner.text.characters import BEGIN, END, FIRST, UNKNOWN, alphabet_of, spell
from runner.text.features import Affix, Casing, Characters, casing
from runner.text.vocab import EOS, PAD, SPECIALS, UNK, Feature, Vocab

WORDS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), max_size=8)


def table(*rows: list[str]) -> pa.Table:
    return pa.table({"tokens": pa.array(rows, pa.list_(pa.string()))})


def slow_casing(word: str) -> str:
    """Classify the casing by its definition, character by character."""
    kinds = [unicodedata.category(item) for item in word]
    letters = [kind for kind in kinds if kind.startswith("L")]
    capital = [kind in ("Lu", "Lt") for kind in letters]
    if word and all(kind == "Nd" for kind in kinds):
        return "digits"
    if any(kind.startswith("N") for kind in kinds):
        return "has_digit"
    if not letters:
        return "punctuation"
    if not any(kind in ("Lu", "Lt", "Ll") for kind in letters):
        return "caseless"
    if not any(capital):
        return "lower"
    if capital[0] and not any(capital[1:]):
        return "title"
    return "mixed" if "Ll" in letters else "upper"


@given(WORDS)
def test_casing_is_that_of_its_definition(words: list[str]) -> None:
    # RE2 and Python may know different versions of Unicode; letters of this plane agree
    words = ["".join(item for item in word if ord(item) < 0x500) for word in words]
    assert casing(pa.array(words, pa.string())).to_pylist() == [slow_casing(word) for word in words]


def test_casing_of_words_that_occur() -> None:
    actual = casing(
        pa.array(["12", "...", "B2B", "3.14", "of", "The", "I", "EU", "U.S.", "iPhone", "@Bob", "中文", ""])
    )
    expected = "digits punctuation has_digit has_digit lower title title upper upper mixed title caseless punctuation"
    assert actual.to_pylist() == expected.split()
    vocab = Casing(column="tokens").vocab([table(["a"])])
    assert -1 not in vocab.encode(actual)
    assert vocab.unk not in vocab.encode(actual)
    assert vocab.tokens[:3] == (PAD, UNK, EOS)


def test_affixes_are_whole_where_words_are_short() -> None:
    def affix(end: str) -> Affix:
        options = {"lowercase": True, "digits_to_zero": True, "min_count": 1, "max_size": None}
        return Affix(column="tokens", end=end, length=2, **options)  # type: ignore[arg-type]

    rows = table(["Running", "B7"], [], ["a", "𝒳𝒴𝒵"])
    assert affix("suffix").strings(rows).to_pylist() == ["ng", "b0", "a", "𝒴𝒵"]
    assert affix("prefix").strings(rows).to_pylist() == ["ru", "b0", "a", "𝒳𝒴"]
    assert set(affix("suffix").vocab([rows]).tokens) == {PAD, UNK, EOS, "ng", "b0", "a", "𝒴𝒵"}


def test_digits_become_zero_and_capitals_lower_case() -> None:
    words = Feature(column="tokens", lowercase=True, digits_to_zero=True, min_count=1, max_size=None, extend=False)
    assert words.strings(table(["Room", "21b"], ["٣"])).to_pylist() == ["room", "00b", "0"]


def test_every_form_has_an_id_and_only_frequent_characters_are_learned() -> None:
    characters = Characters(column="tokens", lowercase=False, digits_to_zero=False, min_count=2)
    vocab = characters.vocab([table(["ab", "abc", "ab", "ab"], ["x"])])
    assert set(vocab.tokens) == {PAD, UNK, EOS, "ab", "abc", "x"}
    assert vocab.alphabet == "ab"  # of distinct forms: c and x occur once
    assert characters.extend
    grown = vocab.extend([characters.strings(table(["new", "ab"]))])
    assert (grown.tokens[:-1], grown.tokens[-1], grown.extra) == (vocab.tokens, "new", 1)
    assert grown.extend([pa.array(["newer"])]).extra == 2
    assert grown.alphabet == "ab"
    assert type(grown).from_plain(grown.to_plain()) == grown


def slow_spelling(form: str, alphabet: str, limit: int) -> list[int]:
    text = form[:limit]
    return [BEGIN, *[FIRST + alphabet.index(item) if item in alphabet else UNKNOWN for item in text], END]


@given(WORDS, st.integers(1, 5), st.integers(1, 3))
@example([PAD, UNK, EOS, "\U0010ffff", "ad"], 9, 1)  # forms that look like special ids are spelled like any other
def test_spelling_is_that_of_each_form_by_itself(words: list[str], limit: int, min_count: int) -> None:
    alphabet = alphabet_of(words, min_count)
    counts = Counter("".join(words))
    assert list(alphabet) == sorted(item for item, n in counts.items() if n >= min_count and item != "\U0010ffff")
    actual = spell(Vocab(tuple(words), SPECIALS), alphabet, limit)
    parts = np.split(actual.symbols, actual.offsets[1:-1])
    special = [[], [BEGIN, UNKNOWN, END], [BEGIN, END]]
    assert [part.tolist() for part in parts] == special + [slow_spelling(form, alphabet, limit) for form in words]
    assert actual.cut.tolist() == [False] * 3 + [len(form) > limit for form in words]
