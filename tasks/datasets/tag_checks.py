"""Tags as a corpus holds them: their scheme, and whether each may stand where it does."""

import logging
from collections.abc import Callable
from typing import Literal

import pyarrow as pa

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError

SpanScheme = Literal["IOB1", "IOB2", "IOBES"]

log = logging.getLogger(__name__)


def check_tags(
    tags: pa.Array, offsets: IntArray, scheme: SpanScheme | None, strict: bool, at: Callable[[int], str]
) -> None:
    """Look for tags that `scheme` forbids: malformed, or not allowed after the tag before.

    Args:
        tags: (N,) of all sentences.
        offsets: (B+1,) where sentences begin.
        scheme: null checks nothing: the tags are plain, such as parts of speech.
        strict: an illegal tag is an error; otherwise it is kept as it is and counted in the log.
        at: where a flat position stands, as `path:line`.

    Raises:
        HydromelError: the first illegal tag, if strict.
    """
    if scheme is None:
        return
    from tasks.spans.tags import illegal

    places = illegal(tags, offsets, scheme)
    if not len(places):
        return
    first = int(places[0])
    begins = first in offsets
    before = "at the beginning of a sentence" if begins else f"after '{tags[first - 1].as_py()}'"
    what = f"{at(first)}: tag '{tags[first].as_py()}' {before} is illegal in {scheme}"
    if strict:
        raise HydromelError(
            f"{what} ({len(places)} such in the file); "
            "name the file's own scheme with dataset.span_scheme, or keep such tags with dataset.strict_tags=false"
        )
    log.warning("%s; %d such tags are kept", what, len(places))
