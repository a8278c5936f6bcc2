"""CoNLL-U (universaldependencies.org/format.html): ten tab-separated columns, one syntactic word per line."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.errors import HydromelError
from runner.text.arrow import first_true, mask_of
from runner.text.formats.columns import Columns
from tasks.datasets.base import LocalCorpus
from tasks.datasets.conll import Cells
from tasks.datasets.files import TextFile, read_text
from tasks.datasets.split import path_of

WIDTH = 10
NO_WORD = r"[0-9]+[-.][0-9]+\t"  # start of the lines of multiword ranges and empty nodes
COLUMNS = {"tokens": 1, "lemma": 2, "tags": 3, "xpos": 4}  # FORM, LEMMA, UPOS, XPOS


@dataclass(kw_only=True)
class Conllu(LocalCorpus):
    """A reader of treebanks as tagged text: FORM as `tokens`, UPOS as `tags`, XPOS as `xpos`, LEMMA as `lemma`.

    Comments, multiword ranges (id `8-9`) and empty nodes (id `8.1`) are ignored.

    Args:
        span_scheme: always null, since parts of speech are plain tags (task=tag reads `${dataset.span_scheme}`).
    """

    span_scheme: None

    def parse(self, file: TextFile, split: str) -> pa.Table:
        return self._words(file).table(COLUMNS, None, strict_tags=True)

    def token_lines(self, table: pa.Table) -> tuple[pa.ListArray, str]:
        """Return the original line of each word of a table from `read`, and the separator of its columns.

        Raises:
            HydromelError: the file has changed since.
        """
        return self._words(read_text(path_of(table), self.encoding)).lines_of(table), "\t"

    def text_format(self) -> Columns:
        """Return the format of this data set's files, the default for text given to models trained on it."""
        return Columns("tab", COLUMNS, comment_prefix="#", other=NO_WORD)

    @staticmethod
    def _words(file: TextFile) -> Cells:
        cells = Cells.of(file, "tab", "#", skip_docstart=False)
        if cells.width != WIDTH:
            raise HydromelError(f"{file.at(cells.line[0])}: {cells.width} columns; CoNLL-U has {WIDTH}")
        ids = cells.column(0)
        odd = first_true(~mask_of(pc.match_substring_regex(ids, r"^[0-9]+([-.][0-9]+)?$")))
        if odd is not None:
            raise HydromelError(
                f"{file.at(cells.line[odd])}: id '{ids[odd].as_py()}'; "
                "CoNLL-U allows 8, 8-9 for a range or 8.1 for an empty node"
            )
        return cells.keep(mask_of(pc.ascii_is_decimal(ids)))
