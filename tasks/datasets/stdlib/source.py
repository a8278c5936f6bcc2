"""The source files of the running Python's standard library: their selection, splits, sizes and fingerprint."""

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
from pathlib import Path
from typing import NamedTuple

from runner.common.errors import HydromelError
from tasks.datasets.split import SPLITS

RULES_VERSION = 1  # part of the fingerprint: increase it when the same files are read differently
# Folders that are not part of the library; its tests and demos; character tables.
LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", "encodings", "lib2to3", "turtledemo"})
LEFT_OUT |= {"test", "tests", "idle_test", "idlelib"}
GENERATED = re.compile(rb"auto-?generated|(automatically|file is|configuration) generated", re.IGNORECASE)
HEAD_BYTES = 500  # start of a file, which is searched for GENERATED
# The salt, out of 415,813 candidates, that gives the most balanced splits with CPython 3.11, 3.12 and 3.13. A few large
# files hold much of the library, and every theme of `stdlib_modules` should be in all splits of all sizes if possible.
SALT = "373367"
VALID_SHARE = TEST_SHARE = 0.1  # share of the files


class Size(NamedTuple):
    """A selection of files: a share of them, by hash, and none larger than `max_bytes`."""

    share: float
    max_bytes: float


@dataclass(frozen=True)
class SourceFile:
    """One source file."""

    name: str  # path in the library, such as `json/decoder.py`; the same on every machine
    content: bytes

    @classmethod
    def read(cls, name: str) -> "SourceFile":
        try:
            return cls(name, (library() / name).read_bytes())
        except OSError as error:
            raise HydromelError(f"{library() / name}: cannot be read ({error.strerror})") from error

    @property
    def split(self) -> str:
        return split_of(self.name)

    @property
    def module(self) -> str:
        """The top-level module or package: `json`."""
        return self.name.partition("/")[0].removesuffix(".py")

    def text(self) -> str:
        """Return the decoded text, with LF line ends.

        Raises:
            SyntaxError: the file is not in the encoding that it declares.
        """
        encoding, _ = tokenize.detect_encoding(io.BytesIO(self.content).readline)
        try:
            return self.content.decode(encoding).replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise SyntaxError(f"{self.name}: {error}") from error


def parse(text: str) -> ast.Module:
    """Return the syntax tree of a module.

    Raises:
        SyntaxError: the text is not valid in the running Python version.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes and literals that are deprecated in later versions
        try:
            return ast.parse(text)
        except ValueError as error:  # a NUL character, before Python 3.11.4
            raise SyntaxError(str(error)) from error


def place(purpose: str, name: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends only on the arguments."""
    # 48 bits of a cryptographic hash, which a float holds exactly; Python's own `hash` differs between processes.
    digest = hashlib.sha256(f"{SALT} {purpose} {name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_of(name: str) -> str:
    number = place("split", name)
    return "test" if number < TEST_SHARE else "valid" if number < TEST_SHARE + VALID_SHARE else "train"


def library() -> Path:
    """Return the folder of the standard library; in a virtual environment, that of the base Python."""
    return Path(sysconfig.get_path("stdlib"))


def source_files(size: Size) -> list[SourceFile]:
    """Return the files of a size, sorted by name. Sizes nest: a larger one contains the files of a smaller one.

    Tests, demos, installed packages, `encodings` and files marked as generated are ignored.

    Raises:
        HydromelError: the library has too few source files here, or a file cannot be read.
    """
    folder = library()
    names = sorted(name for name in walk(folder) if place("size", name) < size.share)
    files = [file for file in map(SourceFile.read, names) if not GENERATED.search(file.content[:HEAD_BYTES])]
    files = [file for file in files if len(file.content) <= size.max_bytes]
    if {file.split for file in files} < set(SPLITS):
        raise HydromelError(
            f"{folder}: {len(files)} Python source files, too few for the built-in corpora (stdlib_*): the standard "
            "library is zipped, stripped or missing; use a full CPython, or another dataset with data_dir=FOLDER"
        )
    return files


def walk(folder: Path) -> list[str]:
    """Return the names of the `.py` files under `folder`, without those in `LEFT_OUT` folders."""
    names = []
    for current, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith("config-")]
        relative = Path(current).relative_to(folder)
        names += [(relative / name).as_posix() for name in files if name.endswith(".py")]
    return names


def fingerprint(arguments: Mapping[str, object], files: list[SourceFile]) -> str:
    """Return the sha256 of the files' names and bytes, the Python version, the arguments and the rules' version."""
    record = {
        "rules_version": RULES_VERSION,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "arguments": dict(arguments),
        "files": {file.name: hashlib.sha256(file.content).hexdigest() for file in files},
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
