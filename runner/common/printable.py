"""Make untrusted text safe to show on a terminal."""

from __future__ import annotations

import re

# control characters except tab and line break; line separators; surrogates; marks of text direction
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` with a replacement character for each one that could control a terminal.

    Names, labels and answers of servers are not trusted: escape sequences can move the cursor, set the title or make
    the terminal send input, and marks of direction can make a text look like another one.
    """
    return _COMMANDS.sub("\N{REPLACEMENT CHARACTER}", text)
