"""Value ranges for the annotations of options, in `runner.config.schema` and in constructors that configs name.

`runner.config` checks every value against them, so an unusable number is refused before data is read.
"""

from __future__ import annotations

import codecs
import os
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

MOST = 2**31 - 1  # limit of every count: numpy and torch have 32-bit counts
TINY, HUGE = 1e-30, 1e9  # float32 holds these, and their products with any weights
LONGEST_NAME, LONGEST_PATH = 200, 4096  # characters
_NAME = "Input should be a name of letters, digits and _ - . +, since files and folders are named after it"
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories; surrogates stand for bytes that are not text
# Encodings of host names and of source code: they do not write line breaks as text files do
_NOT_OF_FILES = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7")


def _not_tiny(value: float) -> float:
    if 0 < abs(value) < TINY:
        raise PydanticCustomError("tiny", "Input should be at least {least}, if it is not 0", {"least": TINY})
    return value


def _printable(value: str) -> str:
    if not value.strip() or any(unicodedata.category(letter) in _CONTROLS for letter in value):
        raise PydanticCustomError("text", "Input should be text of one line, not empty and without control characters")
    return value


def _name(value: str) -> str:
    if value.startswith((".", " ")) or not all(letter.isalnum() or letter in "_-.+ " for letter in value):
        raise PydanticCustomError("name", _NAME)
    return value


_MOST_NAME_BYTES = 255  # bytes that the name of a file or folder can have in the usual file systems


def _path(value: str) -> str:
    if value == "~":
        raise PydanticCustomError("home", "Input should be a path; the home directory is ~/")
    if value.startswith("~") and os.path.expanduser(value) == value:
        raise PydanticCustomError("home", "Input should be a path; there is no such user")
    if any(len(name.encode(errors="replace")) > _MOST_NAME_BYTES for name in value.split("/")):
        raise PydanticCustomError("name", "Input should be a path; a name in it has more than 255 bytes")
    return value


def _module(value: str) -> str:
    if not all(part.isidentifier() for part in value.removesuffix(".").split(".")):
        raise PydanticCustomError("module", "Input should be the name of a module, such as my_parts")
    return value


def is_encoding(name: str) -> bool:
    """Return True for an encoding of text files, by its name in Python."""
    try:
        return codecs.lookup(name).name.replace("_", "-") not in _NOT_OF_FILES and bool("\n".encode(name))
    except (LookupError, ValueError):  # ValueError: the encoding `undefined`
        return False


def _encoding(value: str) -> str:
    if not is_encoding(value):
        raise PydanticCustomError(
            "encoding", "Input should be a text encoding such as utf-8, iso-8859-1, cp1252 or utf-16"
        )
    return value


PositiveInt = Annotated[int, Field(gt=0, le=MOST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST)]
Bytes = Annotated[int, Field(gt=0, lt=2**63)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # numpy and Optuna take no larger ones
Threads = Annotated[int, Field(gt=0, le=1024)]  # OpenMP ends the process when it cannot start them
Size = Annotated[int, Field(gt=0, le=2**20)]  # components of a vector
Depth = Annotated[int, Field(gt=0, le=1000)]  # layers, each of which is an object
Width = Annotated[int, Field(gt=0, le=1000)]  # neighbouring tokens or characters that are read together
AddedLayers = Annotated[int, Field(ge=0, le=1000)]  # layers of a kind that may be left out
Sizes = Annotated[list[Size], Field(max_length=100)]  # sizes of hidden layers
Widths = Annotated[list[Width], Field(min_length=1, max_length=100)]
Position = Annotated[int, Field(ge=-MOST, le=MOST)]  # from the left, or from the right if negative

PositiveFloat = Annotated[float, Field(gt=0, le=HUGE, allow_inf_nan=False), AfterValidator(_not_tiny)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=HUGE, allow_inf_nan=False), AfterValidator(_not_tiny)]
# a probability of dropping, for example; 1 would drop everything
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), AfterValidator(_not_tiny)]
Factor = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), AfterValidator(_not_tiny)]
Layer = Annotated[int, Field(ge=-1000, le=1000)]  # index of a layer in a stack, counted from its end if negative
Seconds = Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False)]  # the system's timers overflow within a month

Text = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_printable)]  # also in names of columns and files
Name = Annotated[Text, AfterValidator(_name)]  # files and folders are named after it
FilePath = Annotated[str, Field(max_length=LONGEST_PATH), AfterValidator(_printable), AfterValidator(_path)]
Module = Annotated[Text, AfterValidator(_module)]
Encoding = Annotated[Text, AfterValidator(_encoding)]
UnicodeForm = Literal["NFC", "NFKC", "none"]  # normal form of words; none: as they are written
