"""CoNLL-U (universaldependencies.org/format.html): ten tab-separated columns, one syntactic word per line."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.errors import HydromelError
from runner.text.arrow import mask_of, refuse
from runner.text.formats.columns import Columns
from tasks.datasets.conll import Cells, TokenLines
from tasks.datasets.files import TextFile

WIDTH = 10
NO_WORD = r"[0-9]+[-.][0-9]+\t"  # start of the lines of multiword ranges and empty nodes
COLUMNS = {"tokens": 1, "lemma": 2, "tags": 3, "xpos": 4}  # FORM, LEMMA, UPOS, XPOS


@dataclass(kw_only=True)
class Conllu(TokenLines):
    """A reader of treebanks as tagged text: FORM as `tokens`, UPOS as `tags`, XPOS as `xpos`, LEMMA as `lemma`.

    Comments, multiword ranges (id `8-9`) and empty nodes (id `8.1`) are ignored.

    Args:
        span_scheme: always null, since parts of speech are plain tags (task=tag reads `${dataset.span_scheme}`).
    """

    span_scheme: None

    def parse(self, file: TextFile, split: str) -> pa.Table:
        return self.cells(file).table(COLUMNS, None, strict_tags=True)

    def text_format(self) -> Columns:
        return Columns("tab", COLUMNS, comment_prefix="#", other=NO_WORD)

    def cells(self, file: TextFile) -> Cells:
        cells = Cells.of(file, "tab", "#", skip_docstart=False)
        if cells.width != WIDTH:
            raise HydromelError(f"{file.at(cells.line[0])}: {cells.width} columns; CoNLL-U has {WIDTH}")
        ids = cells.column(0)
        refuse(
            ~mask_of(pc.match_substring_regex(ids, r"^[0-9]+([-.][0-9]+)?$")),
            lambda row: (
                f"{file.at(cells.line[row])}: id '{ids[row].as_py()}'; "
                "CoNLL-U allows 8, 8-9 for a range or 8.1 for an empty node"
            ),
        )
        return cells.keep(mask_of(pc.ascii_is_decimal(ids)))
