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
from pathlib import Path

from runner.common.errors import HydromelError
from tasks.datasets.split import SPLITS

RULES_VERSION = 1  # raise it when the same files come to be read differently: it enters the fingerprint
# folders that are no part of the library; its tests and demos; tables of characters
LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", "encodings", "lib2to3", "turtledemo"})
LEFT_OUT |= {"test", "tests", "idle_test", "idlelib"}
GENERATED = re.compile(rb"auto-?generated|(automatically|file is|configuration) generated", re.IGNORECASE)
HEAD_BYTES = 500  # of a file, in which it says whether it is generated
# Of 415,813 tried, the salt under which CPython 3.11, 3.12 and 3.13 are cut into the fairest splits: a few large files
# hold much of the library, and a theme of `stdlib_modules` should occur in all splits of all sizes where it can.
SALT = "373367"
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
    def module(self) -> str:
        """The top-level module or package: `json`."""
        return self.name.partition("/")[0].removesuffix(".py")

    def text(self) -> str:
        """Line ends are LF.

        Raises:
            SyntaxError: the file is not in the encoding that it names.
        """
        encoding, _ = tokenize.detect_encoding(io.BytesIO(self.content).readline)
        try:
            return self.content.decode(encoding).replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise SyntaxError(f"{self.name}: {error}") from error


@dataclass(frozen=True)
class Size:
    """Which files a size takes: a share of them by hash, none larger than `max_bytes`."""

    share: float
    max_bytes: float


def parse(text: str) -> ast.Module:
    """The syntax of a module.

    Raises:
        SyntaxError: the text is no Python of the running version.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes and literals that later versions frown upon
        try:
            return ast.parse(text)
        except ValueError as error:  # a NUL character, before Python 3.11.4
            raise SyntaxError(str(error)) from error


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


def source_files(size: Size) -> list[SourceFile]:
    """The files of a size, in order of names. Sizes nest: a larger share and limit give the same files and more.

    Left out: tests, demos, installed packages, `encodings`, and files that say that they are generated.

    Raises:
        HydromelError: the library has too little source here, or a file cannot be read.
    """
    folder = library()
    names = sorted(name for name in walk(folder) if place("size", name) < size.share)
    found = [file for file in map(read, names) if not GENERATED.search(file.content[:HEAD_BYTES])]
    found = [file for file in found if len(file.content) <= size.max_bytes]
    if {split_of(file.name) for file in found} < set(SPLITS):
        raise HydromelError(
            f"{folder}: {len(found)} files of Python source, too few for the built-in corpora (stdlib_*): the standard "
            "library is zipped, stripped or missing; use a full CPython, or another dataset with data_dir=FOLDER"
        )
    return found


def read(name: str) -> SourceFile:
    try:
        return SourceFile(name, (library() / name).read_bytes())
    except OSError as error:
        raise HydromelError(f"{library() / name}: cannot be read ({error.strerror})") from error


def walk(folder: Path) -> list[str]:
    """Names of the `.py` files under `folder`; `LEFT_OUT` folders are not entered."""
    names = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith("config-")]
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
