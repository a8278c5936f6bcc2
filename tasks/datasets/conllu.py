"""CoNLL-U (universaldependencies.org/format.html): ten tab-separated columns, a syntactic word a line."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import HydromelError
from tasks.datasets.arrays import first_true, mask_of
from tasks.datasets.columns_file import Cells
from tasks.datasets.files import TextFile
from tasks.datasets.local import LocalCorpus

WIDTH = 10
COLUMNS = {"tokens": 1, "lemma": 2, "tags": 3, "xpos": 4}  # FORM, LEMMA, UPOS, XPOS


@dataclass(kw_only=True)
class Conllu(LocalCorpus):
    """A treebank as tagged text: FORM as `tokens`, UPOS as `tags`, XPOS as `xpos`, LEMMA as `lemma`.

    Comments, multiword ranges (id `8-9`) and empty nodes (id `8.1`) are left out.

    Args:
        span_scheme: null, since parts of speech are plain tags (`${dataset.span_scheme}` is what task=tag reads).
    """

    span_scheme: None

    def parse(self, file: TextFile, split: str) -> pa.Table:
        cells = Cells.of(file, "tab", "#", skip_docstart=False)
        if cells.width != WIDTH:
            raise HydromelError(f"{file.at(cells.line[0])}: {cells.width} columns; CoNLL-U has {WIDTH}")
        ids = cells.column(0)
        odd = first_true(~mask_of(pc.match_substring_regex(ids, r"^[0-9]+([-.][0-9]+)?$")))
        if odd is not None:
            raise HydromelError(
                f"{file.at(cells.line[odd])}: id '{ids[odd].as_py()}'; "
                "CoNLL-U has 8, 8-9 for a range or 8.1 for an empty node"
            )
        words = cells.keep(mask_of(pc.ascii_is_decimal(ids)))
        return words.table(COLUMNS, None, strict_tags=True)
