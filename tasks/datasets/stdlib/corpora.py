"""Built-in corpora: real text on every machine, from the standard library of the running Python, without a download.

Splits are by file (80 / 10 / 10 % of the files, by a hash of the file's name in the library). So valid and test come
from files that are not in train, and a file stays in its split when the library grows. Another Python version gives
different corpora; the fingerprint contains the version. Files that the running Python cannot parse are ignored.

Every table has a column `origin`, `FILE:LINE` in the library, in addition to the columns of its task.
"""

import ast
import gc
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from runner.common.types import Name
from tasks.datasets.split import SPLITS
from tasks.datasets.stdlib.roles import logical_lines
from tasks.datasets.stdlib.source import Size, SourceFile, fingerprint, library, parse, place, source_files, split_of

SizeName = Literal["small", "medium", "full"]
CODE_SIZES = {"small": Size(0.25, 24_000), "medium": Size(0.5, 64_000), "full": Size(1, np.inf)}
DOC_SIZES = {"small": Size(0.5, 64_000), "medium": Size(0.75, 128_000), "full": Size(1, np.inf)}
MAX_LINE_TOKENS = 200  # longer logical lines are tables of data (18 of 81,525 lines in CPython 3.11.7)
MIN_DOC_TOKENS = 5  # shorter docstrings hardly identify their theme
OWN_NAME = "<module>"
MAX_CODE_WORDS = 100  # most words read of a function
# A word of prose, or a part of an identifier: `read`, `HTTP` and `lines` of `readHTTP_lines`.
WORD = re.compile(r"[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|[A-Z][^\W\d_A-Z]+")
STRINGS = pa.list_(pa.string())
# A word, possibly with an apostrophe (`doesn't`); a run of ruling or prompt characters (`-----`, `>>>`); or any other
# character that is not white space.
TOKEN = re.compile(r"\w+(?:'\w+)?|[-=*~`.>#]{2,}|[^\w\s]")
TOPICS = "pydoc_data/topics.py"

# Themes of top-level modules, after the chapters of the Library Reference. Splits are by file, so a model has to learn
# the theme, not the file. Modules that fit no theme are left out.
THEMES = {
    "concurrency": "asyncio concurrent contextvars multiprocessing queue sched selectors signal subprocess threading "
    "_threading_local",
    "data_types": "_collections_abc _pydatetime _strptime _weakrefset bisect calendar collections copy copyreg "
    "dataclasses datetime enum functools graphlib heapq operator pprint reprlib types weakref zoneinfo",
    "development": "bdb cProfile doctest logging pdb profile pstats timeit trace traceback tracemalloc unittest "
    "warnings",
    "files": "_compression _pyio bz2 dbm filecmp fileinput fnmatch genericpath glob gzip io linecache lzma mimetypes "
    "ntpath nturl2path os pathlib pickle posixpath pty shelve shutil sqlite3 stat tarfile tempfile zipapp zipfile",
    "graphics": "curses tkinter tty turtle",
    "import": "compileall distutils ensurepip imp importlib modulefinder pkgutil py_compile runpy site sysconfig venv "
    "zipimport",
    "language": "_py_abc abc ast code codeop contextlib dis inspect opcode pickletools pyclbr pydoc rlcompleter "
    "symtable tabnanny token tokenize typing _pyrepl",
    "mail": "base64 email imaplib mailbox mailcap nntplib poplib quopri smtpd smtplib uu",
    "markup": "_markupbase configparser csv html json netrc plistlib tomllib xdrlib xml",
    "network": "asynchat asyncore cgi cgitb ftplib http ipaddress socket socketserver ssl telnetlib urllib webbrowser "
    "wsgiref xmlrpc",
    "numbers": "_pydecimal _pylong colorsys decimal fractions hashlib hmac numbers random secrets statistics",
    "text": "argparse cmd codecs difflib getopt getpass gettext locale optparse re shlex string stringprep textwrap",
}
# Actions of code -> the kinds of nodes in its tree that show them.
ACTIONS: dict[str, tuple[type[ast.AST], ...]] = {
    "branch": (ast.If, ast.IfExp, ast.Match),
    "comprehend": (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    "handle": (ast.Try,),
    "import": (ast.Import, ast.ImportFrom),
    "loop": (ast.For, ast.AsyncFor, ast.While),
    "raise": (ast.Raise,),
    "return": (ast.Return,),
    "with": (ast.With, ast.AsyncWith),
    "yield": (ast.Yield, ast.YieldFrom, ast.Await),
}
THEME_OF = {module: theme for theme, modules in THEMES.items() for module in modules.split()}


class Row(NamedTuple):
    """One example: its split, tokens and origin, its targets if the task has them, and a second text of pairs."""

    split: str
    tokens: list[str]
    origin: str
    label: str | None = None
    tags: list[str] | None = None
    tokens_b: list[str] | None = None
    labels: list[str] | None = None
    value: float | None = None


T = TypeVar("T", Row, SourceFile)


@dataclass(frozen=True, kw_only=True)
class StdlibCorpus(ABC):
    """A corpus made of source files of the library. Subclasses define the rows of a file.

    Among rows with the same tokens only the first is kept, in the order train, valid, test.

    Args:
        name: the data set's name in messages and records.
        size: part of the library that is read.
    """

    name: Name
    size: SizeName
    kind: ClassVar[str]  # name of the corpus in the fingerprint
    sizes: ClassVar[Mapping[str, Size]]

    @abstractmethod
    def rows(self, file: SourceFile) -> list[Row]:
        """Return the rows of a file; raise SyntaxError if the running Python cannot parse it."""

    def files(self) -> list[SourceFile]:
        """Return the files that are read."""
        return source_files(self.sizes[self.size])

    def fingerprint(self) -> str:
        """Return a hash of the files, the options and the Python version."""
        options = {key: value for key, value in asdict(self).items() if key != "name"}
        return fingerprint({"corpus": self.kind, **options}, self.files())

    def read(self) -> dict[str, pa.Table]:
        """Return the table of each split."""
        return tables(self.distinct_rows())

    def distinct_rows(self) -> list[Row]:
        """Return the rows of all files; no two have the same tokens, neither within nor across splits."""
        return first_of(rows_of(self.files(), self.rows), lambda row: tuple(row.tokens))


@dataclass(frozen=True, kw_only=True)
class StdlibRoles(StdlibCorpus):
    """A tagging corpus: the role of each token in a logical line of source code (see `roles`).

    Lines of more than `MAX_LINE_TOKENS` tokens are ignored.

    Args:
        span_scheme: scheme of the tags.
    """

    span_scheme: Literal["IOB2"]
    kind, sizes = "roles", CODE_SIZES

    def rows(self, file: SourceFile) -> list[Row]:
        return [
            Row(file.split, tokens, f"{file.name}:{line}", tags=tags)
            for tokens, tags, line in logical_lines(file.text())
            if len(tokens) <= MAX_LINE_TOKENS
        ]


@dataclass(frozen=True, kw_only=True)
class StdlibModules(StdlibCorpus):
    """A classification corpus: the theme (`THEMES`) of the module that a docstring comes from.

    The name of the docstring's top-level module is replaced by `<module>`, whatever its case. Docstrings of fewer than
    `MIN_DOC_TOKENS` tokens are ignored, and so are themes in valid and test that are not in train with this Python.
    """

    kind, sizes = "modules", DOC_SIZES

    def rows(self, file: SourceFile) -> list[Row]:
        theme, own = THEME_OF.get(file.module), file.module.lower()
        rows = []
        for text, line in docstrings(parse(file.text())) if theme else ():
            tokens = [OWN_NAME if token.lower() == own else token for token in TOKEN.findall(text)]
            if len(tokens) >= MIN_DOC_TOKENS:
                rows.append(Row(file.split, tokens, f"{file.name}:{line}", label=theme))
        return rows

    def read(self) -> dict[str, pa.Table]:
        rows = self.distinct_rows()
        train_labels = {row.label for row in rows if row.split == "train"}
        return tables([row for row in rows if row.label in train_labels])


@dataclass(frozen=True, kw_only=True)
class StdlibFunctions(StdlibCorpus):
    """A corpus of docstrings of functions, for classification with several labels and for regression.

    The `labels` are the actions of the function's code (`ACTIONS`); its `value` is the base-2 logarithm of the number
    of lines of its code, without the docstring. Docstrings of fewer than `MIN_DOC_TOKENS` tokens are ignored.
    """

    kind, sizes = "functions", DOC_SIZES

    def rows(self, file: SourceFile) -> list[Row]:
        rows = []
        for node in ast.walk(parse(file.text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or not (text := ast.get_docstring(node)):
                continue
            tokens, docstring = TOKEN.findall(text), node.body[0]
            assert node.end_lineno is not None
            assert docstring.end_lineno is not None
            n_lines = node.end_lineno - node.lineno - (docstring.end_lineno - docstring.lineno)
            within = [*ast.walk(node)]
            labels = [name for name, kinds in ACTIONS.items() if any(isinstance(part, kinds) for part in within)]
            if len(tokens) >= MIN_DOC_TOKENS:
                value = math.log2(max(1, n_lines))
                rows.append(Row(file.split, tokens, f"{file.name}:{node.lineno}", labels=labels, value=value))
        return rows


@dataclass(frozen=True, kw_only=True)
class StdlibDocstrings(StdlibCorpus):
    """A classification corpus of pairs: the words of a function's code, and the first paragraph of a docstring.

    The code is without its docstring. The second text is the function's `own` docstring or that of `another` function
    of the split, as a hash of the function's position decides. The other function is as far away as possible, so almost
    always in another file.
    """

    kind, sizes = "docstrings", DOC_SIZES

    def rows(self, file: SourceFile) -> list[Row]:
        functions = documented_functions(file.text())
        return [
            Row(file.split, code, f"{file.name}:{line}", label="own", tokens_b=summary)
            for code, summary, line in functions
        ]

    def read(self) -> dict[str, pa.Table]:
        rows = self.distinct_rows()
        return tables([row for split in SPLITS for row in with_others([row for row in rows if row.split == split])])


@dataclass(frozen=True, kw_only=True)
class StdlibWords(StdlibCorpus):
    """A language modelling corpus of words: docstrings, and the paragraphs of `pydoc`'s help topics if it has any.

    Topics are assigned to splits and sizes in the same way as files.
    """

    kind, sizes = "words", DOC_SIZES

    def files(self) -> list[SourceFile]:
        return super().files() + ([SourceFile.read(TOPICS)] if (library() / TOPICS).is_file() else [])

    def rows(self, file: SourceFile) -> list[Row]:
        tree = parse(file.text())
        texts = [(file.name, text, line) for text, line in docstrings(tree)]
        if file.name == TOPICS:
            paragraphs = ((f"{TOPICS}#{topic}", text, line) for topic, text, line in topics(tree))
            texts = [row for row in paragraphs if place("size", row[0]) < self.sizes[self.size].share]
        rows = (Row(split_of(unit), TOKEN.findall(text), f"{unit}:{line}") for unit, text, line in texts)
        return [row for row in rows if row.tokens]


@dataclass(frozen=True, kw_only=True)
class StdlibChars(StdlibCorpus):
    """A language modelling corpus of characters: lines of source code, with indentation, without line ends.

    Blank lines, trailing white space and duplicate files are ignored. Lines that occur in several files are kept.
    """

    kind, sizes = "chars", CODE_SIZES

    def rows(self, file: SourceFile) -> list[Row]:
        lines = enumerate(map(str.rstrip, file.text().split("\n")), start=1)
        return [Row(file.split, list(line), f"{file.name}:{number}") for number, line in lines if line]

    def read(self) -> dict[str, pa.Table]:
        return tables(rows_of(first_of(self.files(), lambda file: file.content), self.rows))


def rows_of(files: Iterable[SourceFile], rows: Callable[[SourceFile], list[Row]]) -> list[Row]:
    """Return the rows of all files that the running Python can parse."""
    all_rows = []
    # Trees and rows are many objects without cycles: collecting garbage would take a third of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
        for file in files:
            try:
                all_rows += rows(file)
            except SyntaxError:
                continue
    finally:
        if enabled:
            gc.enable()
    return all_rows


def first_of(items: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """Return the first item of each key, in the order train, valid, test."""
    first: dict[Hashable, T] = {}
    for item in sorted(items, key=lambda item: SPLITS.index(item.split)):
        first.setdefault(key(item), item)
    return list(first.values())


def tables(rows: list[Row]) -> dict[str, pa.Table]:
    """Return one table per split, with `tokens`, `origin`, and the other columns that the rows have."""
    return {split: table([row for row in rows if row.split == split]) for split in SPLITS}


def table(rows: list[Row]) -> pa.Table:
    columns = {"tokens": pa.array([row.tokens for row in rows], STRINGS)}
    if rows and rows[0].tokens_b is not None:
        columns["tokens_b"] = pa.array([row.tokens_b for row in rows], STRINGS)
    if rows and rows[0].label is not None:
        columns["label"] = pa.array([row.label for row in rows], pa.string())
    if rows and rows[0].labels is not None:
        columns["labels"] = pa.array([row.labels for row in rows], STRINGS)
    if rows and rows[0].value is not None:
        columns["value"] = pa.array([row.value for row in rows], pa.float64())
    if rows and rows[0].tags is not None:
        columns["tags"] = pa.array([row.tags for row in rows], STRINGS)
    return pa.table({**columns, "origin": pa.array([row.origin for row in rows], pa.string())})


def docstrings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield (docstring, line) of the module, its classes and functions, without the source's indentation."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text, node.body[0].lineno
        # Only statements are visited: expressions are most of a tree and contain no docstrings.
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            pending.extend(getattr(node, field, ()))


def with_others(rows: list[Row]) -> list[Row]:
    """Return functions with their own docstrings or those of others, if these two differ."""
    half = len(rows) // 2
    pairs = zip(rows, rows[half:] + rows[:half], strict=True)
    return [
        row if place("docstring", row.origin) < 0.5 else row._replace(label="another", tokens_b=other.tokens_b)
        for row, other in pairs
        if row.tokens_b != other.tokens_b
    ]


def documented_functions(text: str) -> Iterator[tuple[list[str], list[str], int]]:
    """Yield each function with a docstring: the words of its code, those of the docstring's first paragraph, its line.

    The code leaves out the docstring, and includes nested functions.
    """
    lines = text.split("\n")
    for node in ast.walk(parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (summary := ast.get_docstring(node)):
            docstring = node.body[0]
            assert node.end_lineno is not None
            assert docstring.end_lineno is not None
            code = "\n".join(
                lines[node.lineno - 1 : docstring.lineno - 1] + lines[docstring.end_lineno : node.end_lineno]
            )
            words = WORD.findall(re.split(r"\n\s*\n", summary)[0])
            if words:
                yield WORD.findall(code)[:MAX_CODE_WORDS], words, node.lineno


def topics(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yield (topic, paragraph, line of the topic) of the texts shown by `help('FOR')`, from the tree of `TOPICS`."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for key, value in zip(statement.value.keys, statement.value.values, strict=True):
                if key is not None:
                    topic, text = ast.literal_eval(key), ast.literal_eval(value)
                    for paragraph in re.split(r"\n\s*\n", text):
                        yield topic, paragraph, key.lineno
