"""Guess the content of a user's file for `hydromel data=FILE`: its format, its columns and the task.

The rules are pure functions of the first rows of the training file. If two guesses are about as likely, neither is
chosen: a message says which option to give.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from pathlib import Path

import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.formats.conllu import STANDARD, named_in
from tasks.datasets.arrow_columns import class_names
from tasks.datasets.arrow_files import BINARY, head_of_table
from tasks.datasets.conll import DOCSTART
from tasks.datasets.files import decoded, find_all, head_of
from tasks.datasets.labelled import MARK
from tasks.datasets.split import SPLITS

ENCODERS = {"lm": "lstm"}  # encoder by task, otherwise `conv`: quick to train, and good on most data
# for tagging, where endings and capitals are informative
CHARACTERS = {"features": "words_chars", "embedding": "word_char"}
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("sentence_a", "sentence_b"),
)
TOKENS = ("tokens", "words", "forms")
TAGS = ("tags", "labels", "ner_tags", "pos_tags", "upos", "ner", "pos", "chunk_tags")
TEXTS = (
    "text",
    "sentence",
    "content",
    "review",
    "document",
    "question",
    "query",
    "tweet",
    "comment",
    "message",
    "body",
)
TARGETS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "emotion", "polarity")
NUMBERS = ("score", "value", "rating", "stars", "similarity", "similarity_score")
# names that are common in a table's first row
NAMES = {*TEXTS, *TARGETS, *NUMBERS, *(name for pair in PAIRS for name in pair)}
MISSING = {"", "nan", "+nan", "-nan", "na", "n/a", "#n/a", "null", "none", "inf", "+inf", "-inf", "-"}  # of a number
READERS = ("columns_file", "conllu", "csv", "jsonl", "labelled", "parquet", "sst_trees", "text", "tsv")
DELIMITERS = "\t,;|"
LABEL_SEPARATORS = ";|,"
HEAD_BYTES = 2**18
NO_TAGS = {"id", "form", "lemma", "feats", "head", "deps", "misc"}  # columns of CoNLL-U
LEAST_LINES = 10  # fewest lines with a label from which a format is inferred
_MARKED = {  # encodings by the byte order mark; the longer ones first
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".conll": "columns_file", ".conllu": "conllu"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_SEPARATORS = (("tab", "\t"), ("space", None))
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_SPAN_TAG = re.compile(r"O|[BIESLUM]-.+|.+-[BIESLUM]")
_LABEL = re.compile(r"\d{1,3}|[A-Za-z]+:[A-Za-z]+")
_TREE = re.compile(r"\(\d .*\)\s*")
_NODE = re.compile(r"\d+([-.]\d+)?")  # the id of a line of CoNLL-U
_NEEDS = {"tag": ("tags",), "classify": ("label", "labels", "value"), "regress": ("value", "label")}  # task -> targets
_TASKS = {"tags": "tag", "label": "classify", "labels": "classify", "value": "regress", None: "lm"}  # target -> task


@dataclass(frozen=True)
class Guess:
    """The content of the files for training, validation and test."""

    found: str  # the content in words
    options: dict[str, object]  # options of the command line, in their order


@dataclass(frozen=True)
class Found:
    """The content of one file."""

    dataset: str  # reader of the format
    found: str  # the content in words
    target: str | None  # kind of the target: label, labels, value or tags; None: there is none
    options: dict[str, object] = field(default_factory=dict)  # options options of the reader
    is_pair: bool = False


@dataclass(frozen=True)
class Column:
    """The first values of a column of a table."""

    name: str | int  # the name, or the position
    values: Sequence[object]  # strings, numbers, booleans, or lists of these; None for anything else
    has_class_names: bool = False

    @property
    def is_list(self) -> bool:
        return bool(self.values) and all(isinstance(value, list) for value in self.values)

    @property
    def is_simple(self) -> bool:
        return bool(self.values) and all(isinstance(value, str | int | float) for value in self.values)

    @property
    def written(self) -> list[str]:
        return [str(value).strip() for value in self.values]

    @property
    def is_numeric(self) -> bool:
        """True if it has numbers; some of them may be missing, so that the reader names these rows."""
        present = [value for value in self.written if value.lower() not in MISSING]
        return self.is_simple and not self.has_class_names and bool(present) and all(map(_NUMBER.fullmatch, present))

    @property
    def words(self) -> float:
        """The mean number of words; 0 for values that are not strings, or are numbers."""
        is_text = self.is_simple and all(isinstance(value, str) for value in self.values) and not self.is_numeric
        return sum(len(text.split()) for text in self.written) / len(self.values) if is_text else 0.0

    @property
    def repeats(self) -> bool:
        """True if there are few different values, as of labels."""
        return self.is_simple and len(set(self.written)) <= max(1, len(self.values) // 2)


@dataclass(frozen=True)
class Roles:
    """The columns of a table that hold the text and the target."""

    text: str | int | dict[str, str | int]
    is_list: bool  # the text is lists of tokens
    target: str | int | None
    kind: str | None  # kind kind of the target, as in `Found`


def guess(files: Sequence[str], given: Mapping[str, object]) -> Guess:
    """Return the options that one to three files stand for: those of train, valid and test.

    `given` are the options of the command line; they are kept, and the others fit them.

    Raises:
        HydromelError: there is no such file, its content is not clear, or it contradicts the given options.
    """
    shown = f"data={','.join(files)}"
    for split in SPLITS:
        if f"dataset.{split}" in given:
            raise HydromelError(f"{shown} and dataset.{split} both name files; give one of them")
    if not all(files) or len(files) > len(SPLITS):
        raise HydromelError(f"{shown}: give one to three files, TRAIN,VALID,TEST")
    data_dir = given.get("data_dir")
    paths = [find_all(name, data_dir if isinstance(data_dir, str) else None, f"data={name}")[0] for name in files]
    found = _found(paths[0], given)
    task = given.get("task", _TASKS[found.target])
    if found.target not in _NEEDS.get(str(task), (found.target,)):
        raise HydromelError(f"{paths[0]}: {found.found}; task={task} needs {' or '.join(_NEEDS[str(task)])}")
    options: dict[str, object] = {"task": task, "dataset": found.dataset}
    options |= {f"dataset.{key}": value for key, value in found.options.items()}
    options |= {f"dataset.{split}": name for split, name in zip(SPLITS, files, strict=False)}
    if task == "classify" and found.target == "labels":
        options["task.labels"] = "many"
    if task in ("classify", "regress") and found.is_pair:
        options["task.pairs"] = "apart"
    if task == "tag" and not given.keys() & {"experiment", "init_from", *CHARACTERS}:
        options |= CHARACTERS
    if not given.keys() & {"experiment", "init_from"}:
        options["encoder"] = ENCODERS.get(str(task), "conv")
    return Guess(found.found, {key: value for key, value in options.items() if key not in given})


def _found(path: Path, given: Mapping[str, object]) -> Found:
    """Return the content of a file, for the given reader if there is one."""
    reader = given.get("dataset")
    if reader not in (None, *READERS):
        raise HydromelError(f"dataset={reader} and data={path}: leave it out, or give one of {', '.join(READERS)}")
    head, is_whole = head_of(path, HEAD_BYTES)
    if reader == "parquet" or (reader is None and head.startswith(BINARY)):
        return _of_table(head_of_table(path), path, given)
    marked = next((name for mark, name in _MARKED.items() if head.startswith(mark)), "utf-8")
    encoding = str(given.get("dataset.encoding", marked))
    text = decoded(path, head, encoding, is_whole).rstrip("\n")
    found = of_text(text if is_whole else text.rpartition("\n")[0] or text, path, given, is_whole)
    return found if encoding == "utf-8" else replace(found, options={"encoding": encoding, **found.options})


def of_text(text: str, path: Path, given: Mapping[str, object], is_whole: bool = True) -> Found:
    """Return the content of a text, in the first of the formats below that fits all lines, or in the given one.

    A text that `is_whole` is not only the first lines of its file.
    """
    reader = given.get("dataset")
    lines = [line for line in text.split("\n") if line.strip()]
    if reader is None and path.suffix == ".json" and lines[0].lstrip().startswith("["):
        raise HydromelError(f"{path}: a JSON array; write one object per line (jq -c '.[]')")
    if reader == "jsonl" or (reader is None and lines[0].lstrip().startswith("{")):
        return _json_lines(lines, path, given)
    if reader == "sst_trees" or (reader is None and all(map(_TREE.fullmatch, lines))):
        return Found("sst_trees", "one labelled tree per line", "label", {"valid": None, "test": None})
    if reader == "conllu" or (reader is None and (named_in(lines[0]) or _is_conllu(lines))):
        return _treebank(lines, path, given)
    has_blank = len(lines) < len(text.strip().split("\n"))  # sentences of tokens have, labelled lines do not
    if reader is None and has_blank and not lines[0].startswith(MARK) and (found := _token_lines(text, given)):
        return found
    if reader == "labelled" or (reader is None and _begins_with_labels(lines)):
        marked = [sum(word.startswith(MARK) for word in line.split()) for line in lines]
        several = any(marked) and any(number != 1 for number in marked)
        return Found("labelled", "one text per line, after its label" + "s" * several, "labels" if several else "label")
    if reader in (None, "columns_file") and (found := _token_lines(text, given)) is not None:
        return found
    if reader in (None, "csv", "tsv") and (found := _delimited(text, path, given, is_whole)) is not None:
        return found
    named = next((_SUFFIXES[suffix] for suffix in path.suffixes if suffix in _SUFFIXES), None)
    if reader == "text" or (reader is None and named is None):
        return Found("text", "plain text", None)
    odd = _odd_line(text, str(reader or named), given, is_whole)
    if reader is None:
        what = odd or f": its content is not what its name says; dataset={named} says what is wrong"
        raise HydromelError(f"{path}{what}; give dataset=text for plain text")
    odd = odd or f": not what dataset={reader} reads: the lines differ in their number of columns"
    raise HydromelError(f"{path}{odd}")


def _odd_line(text: str, reader: str, given: Mapping[str, object], is_whole: bool) -> str | None:
    """Return `:LINE: ` and what is wrong with the columns of that line; None if no line can be blamed."""
    if reader in _DELIMITERS:
        mark, given = str(given.get("dataset.delimiter", _DELIMITERS[reader])), {"dataset": reader, **given}
        rows = _rows(text, mark, given, is_whole)
        starts = [*accumulate((1 + sum(cell.count("\n") for cell in row) for row in rows), initial=1)]
        if is_whole and len(_rows(f"{text}\nnext", mark, given)) == len(rows):
            return f":{starts[-2]}: a quote is not closed"
        return _odd_width([*zip(starts, map(len, rows), strict=False)])
    if reader not in ("columns_file", "conllu"):
        return None
    lines = [(place, line) for place, line in enumerate(text.split("\n"), start=1) if not _is_between(line)]
    lines = [(place, line) for place, line in lines if not line.startswith("#")]
    marks = [mark for separator, mark in _SEPARATORS if given.get("dataset.separator", separator) == separator]
    odd = (_odd_width([(place, len(line.rstrip().split(mark))) for place, line in lines]) for mark in marks)
    return next(filter(None, odd), None)


def _odd_width(widths: Sequence[tuple[int, int]]) -> str | None:
    """Return the first of the lines, given as (line number, columns), that has another number of columns than most.

    None: most lines have no common number of columns above 1, or all have it.
    """
    counts = Counter(width for _, width in widths)
    usual = max(counts, key=lambda width: counts[width], default=0)
    if usual < 2 or len(counts) == 1 or 2 * counts[usual] <= len(widths):
        return None
    place, width = next((place, width) for place, width in widths if width != usual)
    return f":{place}: {width} column{'s' * (width != 1)}; most lines have {usual}"


def _is_conllu(lines: Sequence[str]) -> bool:
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return bool(rows) and all(len(row) == 10 and _NODE.fullmatch(row[0]) for row in rows)


def _treebank(lines: Sequence[str], path: Path, given: Mapping[str, object]) -> Found:
    """Return the content of CoNLL-U or CoNLL-U Plus; tags are parts of speech, or the only possible column."""
    names = [name.lower() for name in named_in(lines[0]) or STANDARD]
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    used = {
        name for place, name in enumerate(names) if any(row[place] != "_" for row in rows if len(row) == len(names))
    }
    found = f"CoNLL-U with the columns {', '.join(names)}"
    if "upos" in used or given.keys() & {"dataset.columns", "dataset.columns.tags"}:
        return Found("conllu", found, "tags")
    tags = ["xpos"] if "xpos" in used else [name for name in names if name in used - NO_TAGS]
    if len(tags) != 1:
        raise HydromelError(
            f"{path}: it is not clear which column holds the tags: {', '.join(tags) or 'none has any'}; give "
            "dataset.columns.tags=NAME"
        )
    return Found("conllu", found, "tags", {"columns.tags": tags[0]})


def _begins_with_labels(lines: Sequence[str]) -> bool:
    """Return True if most lines begin with `__label__`, or all with a number, COARSE:fine, or a label word.

    Words count as labels if there are very few different ones, and none occurs in a text.
    """
    if 2 * sum(line.startswith(MARK) for line in lines) > len(lines):
        return True
    words = [line.split() for line in lines]
    if len(lines) < LEAST_LINES or min(map(len, words)) < 2 or any("\t" in line for line in lines):
        return False
    first = Counter(word for word, *_ in words)
    if len(first) <= len(lines) // 4 and all(map(_LABEL.fullmatch, first)):
        return True
    are_few = 2 <= len(first) <= len(lines) // 20 and min(first.values()) > 1
    return are_few and not any(word in first for _, *text in words for word in text)


def _is_between(line: str) -> bool:
    """Return True for a line between sentences."""
    return not line.strip() or line.startswith(DOCSTART)


def _token_lines(text: str, given: Mapping[str, object]) -> Found | None:
    """Return the content of a file with one token per line; None if it is no such file."""
    blocks = [[*block] for is_between, block in groupby(text.split("\n"), _is_between) if not is_between]
    for separator, mark in _SEPARATORS:
        if given.get("dataset.separator", separator) != separator:
            continue
        rows_of = [[(line, line.rstrip().split(mark)) for line in block] for block in blocks]
        widths = Counter(len(row) for block in rows_of for _, row in block)
        width = max(widths, key=lambda width: widths[width], default=0)
        odd = [line for block in rows_of for line, row in block if len(row) != width]
        if width < 2 or not all(line.startswith("#") for line in odd):
            continue
        sentences = [rows for block in rows_of if (rows := [row for _, row in block if len(row) == width])]
        tags = [row[-1] for rows in sentences for row in rows]
        are_spans = all(map(_SPAN_TAG.fullmatch, tags)) and len({*tags}) > 1
        are_tags = len(sentences) > 1 and 1 < len({*tags}) <= len(tags) // 2 and not all(map(_NUMBER.fullmatch, tags))
        if not (are_spans or are_tags or "dataset" in given):
            continue
        options: dict[str, object] = {} if separator == "tab" else {"separator": separator}
        if odd:
            options["comment_prefix"] = "#"
        is_numbered = width > 2 and all(
            row[0] == str(place) for rows in sentences for place, row in enumerate(rows, start=1)
        )
        if is_numbered:
            options["columns.tokens"] = 1
        found = f"one token per line in {width} columns ({separator}), column {int(is_numbered)} tokens, the last tags"
        return Found("columns_file", found, "tags", options)
    return None


# tables


def _delimited(text: str, path: Path, given: Mapping[str, object], is_whole: bool) -> Found | None:
    """Return the content of a table with a delimiter; None if the text is no such table."""
    reader = given.get("dataset")
    suffixes = {suffix.lower() for suffix in path.suffixes}
    tables = {}
    for mark in str(given.get("dataset.delimiter", "\t" if reader == "tsv" else DELIMITERS)):
        rows = _rows(text, mark, given, is_whole)
        if len({len(row) for row in rows}) == 1 and (len(rows[0]) > 1 or (mark == "," and ".csv" in suffixes)):
            has_names = any(cell.strip().lower() in NAMES for cell in rows[0])
            if reader is not None or mark == "\t" or suffixes & {".csv", ".tsv"} or has_names:
                tables[mark] = rows
    if not tables:
        return None
    most = max(len(rows[0]) for rows in tables.values())
    mark, *others = ["\t"] if "\t" in tables else [mark for mark, rows in tables.items() if len(rows[0]) == most]
    if others:
        raise HydromelError(
            f"{path}: the columns may be separated by {mark} or by {' or '.join(others)}; give dataset.delimiter=..."
        )
    rows = tables[mark]
    has_header = _has_header(rows, path, given)
    names: list[str | int] = [*range(len(rows[0]))]
    if has_header:
        repeated = Counter(rows[0])
        names = [name if name.strip() and repeated[name] == 1 else place for place, name in enumerate(rows[0])]
    body = rows[has_header:]
    if not body:
        raise HydromelError(f"{path}: only a header, no rows; its columns are {', '.join(rows[0])}")
    columns = [Column(name, [row[place] for row in body]) for place, name in enumerate(names)]
    ask = ("dataset.text_columns=NAME", "dataset.label_column=NAME (null: none)")
    roles = roles_of(columns, path, given.get("dataset.text_columns"), given.get("dataset.label_column", ...), ask)
    target = next((column for column in columns if column.name == roles.target), None)
    if roles.kind == "label" and given.get("dataset.label_separator") is not None:
        roles = replace(roles, kind="labels")
    elif roles.kind == "label" and target and given.get("task.labels") != "one" and (between := _separator(target)):
        raise HydromelError(
            f"{path}: column {target.name} may hold several labels per row, separated by '{between}'; give "
            f"task.labels=many 'dataset.label_separator=\"{between}\"', or task.labels=one"
        )
    dataset = reader or ("tsv" if mark == "\t" else "csv")
    options: dict[str, object] = {} if (dataset, mark) in (("tsv", "\t"), ("csv", ",")) else {"delimiter": mark}
    if not has_header:
        options["header"] = False
    found = f"a table with the columns {_listed(columns)}" if has_header else f"a table of {most} columns"
    return _with_roles(str(dataset), found, roles, options, ("text_columns", "text_columns", "label_column"))


def _separator(column: Column) -> str | None:
    """Return what separates several labels in the values of a column: its parts are fewer than its values."""
    values = {value for value in column.written if value}
    for mark in LABEL_SEPARATORS:
        parts = {part.strip() for value in values for part in value.split(mark)}
        if sum(mark in value for value in values) > 1 and len(parts) < len(values):
            return mark
    return None


def _rows(text: str, mark: str, given: Mapping[str, object], is_whole: bool = True) -> list[list[str]]:
    """Return the rows of a table; of one that is not whole without the last, which may end within quotes."""
    quoting = given.get("dataset.quoting", given.get("dataset") == "csv" or mark != "\t")
    escape = given.get("dataset.escape")
    csv.field_size_limit(max(csv.field_size_limit(), HEAD_BYTES))  # the limit of the process is only ever raised
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=mark,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        escapechar=escape if isinstance(escape, str) else None,
    )
    try:
        rows = [*reader]
    except csv.Error:
        return [[]]
    return rows if is_whole or len(rows) == 1 else rows[:-1]


def _has_header(rows: list[list[str]], path: Path, given: Mapping[str, object]) -> bool:
    """Return True if the first row names the columns.

    It does if its cells are common names, or if it lacks what later rows have: numbers, or the values of a column with
    few different ones.
    """
    if "dataset.header" in given:
        return bool(given["dataset.header"])
    known = [place for place, cell in enumerate(rows[0]) if cell.strip().lower() in NAMES]
    if len(known) > 1 or any(rows[0][place] not in {row[place] for row in rows[1:]} for place in known):
        return True
    first, columns = rows[0], [Column(place, values) for place, values in enumerate(zip(*rows[1:], strict=True))]
    numeric = [column for column in columns if column.is_numeric]
    if any(not _NUMBER.fullmatch(first[place].strip()) for place in (int(column.name) for column in numeric)):
        return True
    labels = [column for column in columns if column.repeats]
    if numeric or any(first[int(column.name)].strip() in column.written for column in labels):
        return False
    if len(rows) > 10 and labels:
        return True
    raise HydromelError(
        f"{path}:1: it is not clear if this line names the columns; give dataset.header=true or dataset.header=false"
    )


def _json_lines(lines: Sequence[str], path: Path, given: Mapping[str, object]) -> Found:
    """Return the content of JSON Lines."""
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise HydromelError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(records[-1], dict):
            raise HydromelError(f"{path}:{number}: each line must hold one JSON object")
    names = dict.fromkeys(name for record in records for name in record)
    columns = [_column(name, [record.get(name) for record in records]) for name in names]
    texts = (given.get(f"dataset.{option}") for option in ("text_columns", "text_field", "tokens_field"))
    text = next((name for name in texts if name), None)
    target = next((given[key] for key in ("dataset.tags_field", "dataset.label_field") if given.get(key)), ...)
    ask = (
        "dataset.text_field=NAME or dataset.tokens_field=NAME",
        "dataset.label_field=NAME or dataset.tags_field=NAME",
    )
    roles = roles_of(columns, path, text, target, ask)
    options: dict[str, object] = {}
    if roles.is_list and not isinstance(roles.text, dict):
        options["text_field"] = None
    if roles.kind == "tags":
        options |= {"label_field": None, "tags_field": roles.target}
        roles = replace(roles, target="label")
    fields = ("text_field", "tokens_field", "label_field")
    return _with_roles("jsonl", f"JSON Lines with the fields {_listed(columns)}", roles, options, fields)


def _column(name: str, values: Sequence[object], has_class_names: bool = False) -> Column:
    """Return a column. If it is named like a target, missing values are accepted here; the reader reports them."""
    present = [value for value in values if value is not None]
    if name.lower() in (*TARGETS, *NUMBERS) and not any(isinstance(value, list) for value in present):
        values = present
    return Column(name, values, has_class_names)


def _of_table(table: pa.Table, path: Path, given: Mapping[str, object]) -> Found:
    """Return the content of a Parquet or Arrow file, from its first rows."""
    if not table.num_rows:
        raise HydromelError(f"{path}: only a header, no rows; its columns are {', '.join(table.column_names)}")
    with_classes = class_names(table.schema)
    columns = [_column(name, table[name].to_pylist(), name in with_classes) for name in table.column_names]
    found = f"a table with the columns {_listed(columns)}"
    own = given.get("dataset.columns")
    if isinstance(own, Mapping):
        kind = next((kind for kind in ("tags", "labels", "label", "value") if kind in own), None)
        return Found("parquet", found, kind, is_pair="tokens_b" in own)
    ask = (
        "'dataset.columns={tokens: NAME, ...}'",
        "'dataset.columns={tokens: NAME, label: NAME}' (or labels, value, tags)",
    )
    roles = roles_of(columns, path, None, ..., ask)
    texts = {"tokens": roles.text}
    if isinstance(roles.text, dict):
        texts = {"tokens": roles.text["a"], "tokens_b": roles.text["b"]}
    target = {} if roles.kind is None else {roles.kind: roles.target}
    return Found("parquet", found, roles.kind, {"columns": {**texts, **target}}, isinstance(roles.text, dict))


def _with_roles(
    dataset: str, found: str, roles: Roles, options: dict[str, object], names: tuple[str, str, str]
) -> Found:
    """Return the content of a table; `names` are the options for its texts, tokens and targets."""
    text = "text_columns" if isinstance(roles.text, dict) else names[1] if roles.is_list else names[0]
    if roles.text != "text":
        options[text] = roles.text
    if roles.target != "label":
        options[names[2]] = roles.target
    return Found(dataset, found, roles.kind, options, isinstance(roles.text, dict))


def roles_of(columns: Sequence[Column], path: Path, text: object, target: object, ask: tuple[str, str]) -> Roles:
    """Return the roles of a table's columns.

    `text` is the column that the user named, or None; `target` likewise, where None means no target, and `...` that
    none was named.

    `ask` has the options for the text and for the target, for messages.

    Raises:
        HydromelError: several columns are equally likely, or none is.
    """
    texts = _given(text) if text is not None else _texts(columns, path, target, ask[0])
    inside = [texts] if not isinstance(texts, dict) else [*texts.values()]
    named = {column.name: column for column in columns}
    is_list = any(name in named and named[name].is_list for name in inside)
    others = [column for column in columns if column.name not in inside]
    if target is None:
        return Roles(texts, is_list, None, None)
    if target is not ...:
        column = named.get(target if isinstance(target, str | int) else "")
    else:
        column = _target(others, [named[name] for name in inside if name in named], is_list, path, ask[1])
    if column is None:
        return Roles(texts, is_list, None if target is ... else str(target), None if target is ... else "label")
    return Roles(texts, is_list, column.name, _kind(column, named.get(inside[0])))


def _given(text: object) -> str | int | dict[str, str | int]:
    if isinstance(text, Mapping):
        return {str(key): value for key, value in text.items()}
    first = text[0] if isinstance(text, list) and text else text
    return first if isinstance(first, str | int) else str(first)


def _texts(columns: Sequence[Column], path: Path, target: object, ask: str) -> str | int | dict[str, str | int]:
    """Return the column of the text, or those of a pair of texts."""
    names = {str(column.name).lower(): column.name for column in columns if not column.is_list}
    lists = {str(column.name).lower(): column.name for column in columns if column.is_list}
    if tokens := next((lists[name] for name in TOKENS if name in lists), None):
        return tokens
    if pair := next((pair for pair in PAIRS if names.keys() >= {*pair}), None):
        return {"a": names[pair[0]], "b": names[pair[1]]}
    if (common := [names[name] for name in TEXTS if name in names]) and (len(common) == 1 or "text" in names):
        return common[0]
    longest = sorted((c for c in columns if c.name != target and c.words), key=lambda c: c.words, reverse=True)
    if longest and (len(longest) == 1 or longest[0].words >= 2 * longest[1].words):
        return longest[0].name
    raise HydromelError(
        f"{path}: it is not clear which column holds the text; the columns are {_listed(columns)}; give {ask}"
    )


def _target(others: Sequence[Column], texts: Sequence[Column], is_list: bool, path: Path, ask: str) -> Column | None:
    """Return the column of the targets; None if there is none."""
    if is_list:
        lengths = [len(value) for value in texts[0].values if isinstance(value, list)]
        fitting = [c for c in others if c.is_list and [len(v) for v in c.values if isinstance(v, list)] == lengths]
        if found := _one(fitting, TAGS, "tags", path, ask):
            return found
        for column in (column for column in others if column.is_list):
            pairs = enumerate(zip(lengths, (len(v) for v in column.values if isinstance(v, list)), strict=False), 1)
            wrong = [(row, *both) for row, both in pairs if both[0] != both[1]]
            if wrong and 2 * len(wrong) <= len(lengths):  # tags, some of which are missing, rather than labels
                row, tokens, tags = wrong[0]
                raise HydromelError(
                    f"{path}: row {row}: {tokens} tokens, but {tags} values in {column.name}; give each token a "
                    f"tag, or name the target: {ask}"
                )
    candidates = [column for column in others if column.is_simple or column.is_list]
    by_name = {str(column.name).lower(): column for column in candidates}
    if named := [by_name[name] for name in (*TARGETS, *NUMBERS) if name in by_name]:
        return _one(named, TARGETS, "label", path, ask)
    return _one([column for column in candidates if column.repeats or column.is_list], TARGETS, "label", path, ask)


def _one(candidates: Sequence[Column], names: Sequence[str], what: str, path: Path, ask: str) -> Column | None:
    """Return the only candidate, or the only one with one of the first two `names`; None if there are no candidates."""
    first = [column for column in candidates if str(column.name).lower() in names[:2]]
    if len(candidates) > 1 and len(first) != 1:
        raise HydromelError(f"{path}: several columns may hold the {what}: {_listed(candidates)}; give {ask}")
    return first[0] if first else next(iter(candidates), None)


def _kind(column: Column, text: Column | None) -> str:
    """Return the kind of the targets of a column."""
    if column.is_list:
        lengths = [len(value) for value in column.values if isinstance(value, list)]
        is_tags = text is not None and text.is_list and lengths == [len(v) for v in text.values if isinstance(v, list)]
        return "tags" if is_tags else "labels"
    has_fraction = column.is_numeric and any("." in number for number in column.written)
    return "value" if has_fraction else "label"


def _listed(columns: Sequence[Column], most: int = 12) -> str:
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(str(column.name) for column in columns[:most]) + more
