"""Predictions and generated texts as tables, which a notebook shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pyarrow as pa

from runner.common.errors import HydromelError
from runner.common.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

    from runner.inference.generation.generate import GeneratedText
    from runner.text.formats.base import PassagePredictions

Form = Literal["csv", "json", "jsonl", "parquet"]
_SHOWN = 20  # rows of a table in a notebook


class PredictedRows(Sequence[object]):
    """The predictions of rows: a sequence of labels, sets of labels, numbers, or lists of tags.

    Attributes:
        texts: the tokens that the model read, a column of lists of strings for each text.
    """

    def __init__(self, texts: pa.Table, predictions: PassagePredictions) -> None:
        self.texts, self._predictions = texts, predictions
        self._values: list[object] = predictions.values.to_pylist()

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int | slice) -> object:  # type: ignore[override]
        return self._values[index]

    def __iter__(self) -> Iterator[object]:
        return iter(self._values)

    @property
    def table(self) -> pa.Table:
        """The texts with their predictions, as `hydromel-predict --to parquet` writes them: numbers are not rounded."""
        from runner.text.formats.records import record_table

        return record_table(self.texts, self._predictions)

    def to_pandas(self) -> pd.DataFrame:
        """Return `table` as a data frame."""
        return self.table.to_pandas()

    def save(self, path: str | Path, form: Form | None = None) -> Path:
        """Write the file that `hydromel-predict --to FORM` writes, and return its path.

        Args:
            form: the format; None: that of the file's ending.

        Raises:
            HydromelError: an unknown format, or a file that cannot be written.
        """
        import io

        from runner.text.formats.records import ParquetRecords, Records

        path = Path(path)
        wanted = form or path.suffix.removeprefix(".")
        if wanted not in get_args(Form):
            raise HydromelError(f"{path}: unknown format '{wanted}'. Allowed: {', '.join(get_args(Form))}")
        content = io.BytesIO()
        if wanted == "parquet":
            file = ParquetRecords(content, None)
            file.write(self.texts, self._predictions)
            file.close()
        else:
            records = Records(wanted)  # type: ignore[arg-type]
            lines = [*records.write(self.texts, self._predictions), *records.end()]
            content.write("".join(f"{line}\n" for line in lines).encode())
        write_bytes(path, content.getvalue())
        return path

    def __repr__(self) -> str:
        return f"{len(self)} predictions: {self._values!r:.200}"

    def _repr_html_(self) -> str:
        frame = self.table.slice(0, _SHOWN).to_pandas()
        if "text" in frame and "tokens" in frame:  # with spans, whose places are in the text
            frame = frame.drop(columns="tokens")
        for column in frame:
            frame[column] = [_in_a_cell(value) for value in frame[column]]
        return html_table(frame, len(self))


def _in_a_cell(value: object) -> object:
    """Return a list as text: tokens and tags as a line, spans as `Ann (person)`; any other value as it is."""
    to_list = getattr(value, "tolist", None)
    items = to_list() if to_list is not None else value
    if not isinstance(items, list):
        return value
    spans = [f"{item['text']} ({item['label']})" for item in items if isinstance(item, dict) and "text" in item]
    return ", ".join(spans) if spans else " ".join(map(str, items))


class GeneratedTexts(Sequence[str]):
    """Texts that a language model generated, the best of each prompt.

    Attributes:
        prompts: (B,) the prompts.
        all: (B,) all texts of each prompt with their figures, the best first.
    """

    def __init__(self, prompts: Sequence[str], texts: list[list[GeneratedText]]) -> None:
        self.prompts, self.all = list(prompts), texts

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int | slice) -> str:
        return [texts[0].text for texts in self.all][index]  # type: ignore[return-value]

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each text: prompt, place (from 1), text, log P, score, and whether it ended by itself."""
        import pandas as pd

        rows = [
            {"prompt": prompt, "place": place, **vars(text)}
            for prompt, texts in zip(self.prompts, self.all, strict=True)
            for place, text in enumerate(texts, start=1)
        ]
        return pd.DataFrame(rows, columns=["prompt", "place", "text", "log_p", "score", "ended"])

    def __repr__(self) -> str:
        return f"{len(self)} texts: {list(self)!r:.200}"

    def _repr_html_(self) -> str:
        frame = self.to_pandas()
        return html_table(frame.head(_SHOWN), len(frame))


def html_table(frame: pd.DataFrame, rows: int) -> str:
    """Return a data frame as HTML, with a line on rows that are not shown. All text is escaped."""
    import pandas as pd

    with pd.option_context("display.max_colwidth", 120):
        table: str = frame.to_html(escape=True, index=False, border=0, justify="left")
    table = table.replace("<td>", '<td style="text-align: left">')
    more = f"<p>{len(frame):,} of {rows:,} rows</p>" if len(frame) < rows else ""
    return table + more
