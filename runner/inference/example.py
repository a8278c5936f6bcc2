"""A few rows of input for a trained model, `example.json`, which a model in MLflow and a model card show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import pyarrow as pa

from runner.common import run_schema
from runner.common.files import write_json
from runner.data.numericalize import Data
from runner.data.pairs import SECOND, SEGMENT, pairs_of
from runner.interfaces import Corpus, HasInspector
from runner.text.formats.base import STRINGS
from runner.text.formats.objects import TOKENS_B
from runner.text.tokenizers import BY_NAME, HasTokenizer
from runner.training.state import Training

_ROWS, _LONGEST = 2, 24  # rows, and tokens of each
_TEXTS = {"tokens": "text", TOKENS_B: "text_b"}  # columns of tokens, and the fields of the same as raw text


class Example(TypedDict):
    """The content of `example.json`."""

    column: str  # what is predicted: label, labels, value or tags; for a language model `text`
    rows: list[dict[str, object]]  # inputs, as `hydromel-predict --format jsonl` reads them


def write_example(t: Training, data: Data, corpus: Corpus | None = None, table: pa.Table | None = None) -> None:
    """Write the example of a run to its folder: the first rows of `table`, a split of `corpus`.

    Without them it is made of frequent strings of the vocabularies.

    Raises:
        HydromelError: the file cannot be written.
    """
    columns = _columns(t, data)
    rows = [_of_vocabularies(t, data, columns)] if table is None else _of_table(table, corpus, set(columns.values()))
    column = t.task.inspector(data.vocabs, t.model.head).column if isinstance(t.task, HasInspector) else "text"
    write_json(Path(t.run.path) / run_schema.EXAMPLE, Example(column=column, rows=rows))


def _columns(t: Training, data: Data) -> dict[str, str]:
    """Return the column of the corpus that each feature is computed from; of pairs, of both texts."""
    nodes = t.origin.config["features"]
    assert isinstance(nodes, Mapping)
    columns = {"": "tokens"} | {name: str(node["column"]) for name, node in nodes.items() if "column" in node}
    columns = {name: column for name, column in columns.items() if column != SEGMENT}
    if pairs_of(t.task) is not None:
        columns |= {f"{name}{SECOND}": f"{column}{SECOND}" for name, column in columns.items()}
    return columns


def _of_table(table: pa.Table, corpus: object, columns: set[str]) -> list[dict[str, object]]:
    """Return the first rows, cut to a few tokens, with the columns that the model reads."""
    names = [name for name in table.column_names if name in columns and table[name].type == STRINGS]
    rows: list[dict[str, object]] = []
    for row in table.select(names).slice(0, _ROWS).to_pylist():
        cut = {name: values[:_LONGEST] for name, values in row.items()}
        if isinstance(corpus, HasTokenizer) and cut.keys() <= _TEXTS.keys():
            space = "" if corpus.tokenizer == BY_NAME["characters"] else " "
            rows.append({_TEXTS[name]: space.join(values) for name, values in cut.items()})
        else:
            rows.append(cut)
    return rows


def _of_vocabularies(t: Training, data: Data, columns: Mapping[str, str]) -> dict[str, object]:
    vocabs = {name: data.vocabs.get(name.removesuffix(SECOND)) for name in columns}
    if not isinstance(t.task, HasInspector):  # a prompt
        known = [vocab for vocab in vocabs.values() if vocab is not None and vocab.strings]
        whole = [vocab for vocab in known if vocab.merges is None and vocab.tokenizer is None]
        return {"text": whole[0].strings[0] if whole else ""}
    row: dict[str, object] = {}
    for name, column in columns.items():
        if (vocab := vocabs[name]) is not None and vocab.strings:
            row.setdefault(column, [vocab.strings[0]])
    return {"tokens": ["a"]} | row
