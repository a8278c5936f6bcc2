"""A check that the tags of a corpus are legal in their scheme."""

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
    """Check for illegal tags: malformed ones, or ones that `scheme` forbids after the previous tag.

    Args:
        tags: (N,) tags of all sentences.
        offsets: (B+1,) start of each sentence, and N.
        scheme: the scheme; None checks nothing: the tags are plain, such as parts of speech.
        strict: True: an illegal tag is an error; False: illegal tags are kept and counted in the log.
        at: flat position -> `path:line`.

    Raises:
        HydromelError: the first illegal tag, if strict.
    """
    if scheme is None:
        return
    from tasks.spans.tags import illegal_positions

    places = illegal_positions(tags, offsets, scheme)
    if not len(places):
        return
    first = int(places[0])
    context = "at the start of a sentence" if first in offsets else f"after '{tags[first - 1].as_py()}'"
    what = f"{at(first)}: tag '{tags[first].as_py()}' {context} is illegal in {scheme}"
    if strict:
        raise HydromelError(
            f"{what} (illegal tags in the file: {len(places)}); "
            "set the file's scheme with dataset.span_scheme, or keep such tags with dataset.strict_tags=false"
        )
    log.warning("%s; %d illegal tags are kept", what, len(places))
