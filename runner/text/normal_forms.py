"""Unicode normal forms and lower case: one rule for the words of texts and for those of vector files.

A word is normalised (Unicode Standard Annex 15), then lower-cased if that is asked for, then normalised again. Lower
case is that of `str.lower`, Unicode's own with the context of a letter: a sigma at the end of a word becomes ς, İ
becomes i with a dot above (two characters), and ß stays. Words that differ only in their form are then the same word.
"""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.types import UnicodeForm


def normal_form(word: str, form: UnicodeForm, lowercase: bool) -> str:
    """Return a word in its normal form; `none` leaves it as it is written."""
    if form == "none" or word.isascii():
        return word.lower() if lowercase else word
    word = unicodedata.normalize(form, word)
    return unicodedata.normalize(form, word.lower()) if lowercase else word


def normal_forms(strings: pa.Array, form: UnicodeForm, lowercase: bool) -> pa.Array:
    """Return the normal forms (N,) of strings; each distinct string is converted once. Nulls stay null."""
    if form == "none" and not lowercase:
        return strings
    if pc.all(pc.string_is_ascii(strings)).as_py() is not False:  # null for an empty array
        return pc.ascii_lower(strings) if lowercase else strings
    coded = pc.dictionary_encode(strings)
    forms = [normal_form(word, form, lowercase) for word in coded.dictionary.to_pylist()]
    return pa.array(forms, pa.string()).take(coded.indices)


def normal_bytes(word: bytes, form: UnicodeForm) -> bytes:
    """Return the normal form of a word in UTF-8; bytes that are not UTF-8 stay as they are."""
    if form == "none" or word.isascii():
        return word
    try:
        return unicodedata.normalize(form, word.decode()).encode()
    except UnicodeDecodeError:
        return word
