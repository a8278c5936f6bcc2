"""The source of the standard library of the Python that runs: which files, their splits, sizes and fingerprint."""

import ast
import hashlib
import io
import json
import os
import platform
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runner.errors import HydromelError

RULES_VERSION = 1  # raise it when the same files come to be read differently: it enters the fingerprint
LEFT_OUT = frozenset(
    # what is no part of the library, its tests and demos, and tables of characters
    "site-packages dist-packages __pycache__ test tests idle_test idlelib lib2to3 turtledemo encodings".split()
)
GENERATED = re.compile(rb"auto-?generated|(automatically|file is|configuration) generated", re.IGNORECASE)
HEAD_BYTES = 500  # of a file, in which it says whether it is generated
# Of many tried, the salt under which CPython 3.11, 3.12 and 3.13 are cut into the fairest splits: a few large files
# hold much of the library, and each theme of `stdlib_modules` should occur in each split of each size.
SALT = "0"
VALID_SHARE = TEST_SHARE = 0.1  # of the files


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Attributes:
        name: its path in the library, `json/decoder.py`, the same on every machine.
        content: its bytes.
    """

    name: str
    content: bytes

    @property
    def split(self) -> str:
        return split_of(self.name)

    @property
    def module(self) -> str:
        """The top-level module or package: `json`."""
        return self.name.partition("/")[0].removesuffix(".py")

    @cached_property
    def text(self) -> str | None:
        """Its text, or None if it is not in the encoding that it names."""
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(self.content).readline)
            return self.content.decode(encoding).replace("\r\n", "\n")
        except (SyntaxError, UnicodeDecodeError):
            return None

    @cached_property
    def tree(self) -> ast.Module | None:
        """Its syntax, or None if it is no Python of the running version."""
        try:
            return None if self.text is None else parse(self.text)
        except SyntaxError:
            return None


def parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes and literals that later versions frown upon
        return ast.parse(text)


def place(purpose: str, name: str) -> float:
    """A number in [0, 1) that looks random, and depends on its arguments alone."""
    digest = hashlib.sha256(f"{SALT} {purpose} {name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_of(name: str) -> str:
    where = place("split", name)
    return "test" if where < TEST_SHARE else "valid" if where < TEST_SHARE + VALID_SHARE else "train"


def library() -> Path:
    """The folder of the standard library; that of the base Python in a virtual environment."""
    return Path(sysconfig.get_path("stdlib"))


def source_files(share: float) -> list[SourceFile]:
    """About `share` of the library's files by a hash of their names, in order of names; more share, same files and more.

    Left out: tests, demos, installed packages, `encodings`, and files that say that they are generated.

    Raises:
        HydromelError: the library has no source here, or a file cannot be read.
    """
    folder = library()
    names = sorted(name for name in walk(folder) if place("size", name) < share)
    try:
        found = [SourceFile(name, (folder / name).read_bytes()) for name in names]
    except OSError as error:
        raise HydromelError(f"{error.filename}: cannot be read ({error.strerror})") from error
    found = [file for file in found if not GENERATED.search(file.content[:HEAD_BYTES])]
    missing = {"train", "valid", "test"} - {file.split for file in found}
    if missing:
        raise no_source(folder)
    return found


def no_source(folder: Path) -> HydromelError:
    return HydromelError(
        f"{folder}: too little Python source for the built-in corpora (stdlib_*): this Python's standard library is "
        "zipped, stripped or missing; use a full CPython, or a data set of local files (data_dir=FOLDER)"
    )


def walk(folder: Path) -> list[str]:
    """Names of the `.py` files under `folder`; `LEFT_OUT` folders are not entered."""
    names = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        inside = Path(here).relative_to(folder)
        names += [(inside / name).as_posix() for name in files if name.endswith(".py")]
    return names


def fingerprint(arguments: Mapping[str, object], files: list[SourceFile]) -> str:
    """sha256 of the files' names and bytes, the Python version, the arguments and the version of the rules."""
    record = {
        "rules_version": RULES_VERSION,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "arguments": dict(arguments),
        "files": {file.name: hashlib.sha256(file.content).hexdigest() for file in files},
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
