"""Tags of spans by the definition of each scheme, span by span: a slow reference."""

from __future__ import annotations

Row = list[tuple[int, str | None]]  # a row as pieces: (number of tokens, type or None)


def letters_of(scheme: str, length: int, touches_before: bool, touches_after: bool) -> str:
    """Return the letters of a span of some tokens, which touches a span of its type before it or after it."""
    if scheme == "IOB1":  # B only if the token before it belongs to another span of the type
        return ("B" if touches_before else "I") + "I" * (length - 1)
    if scheme == "IOE1":  # E only if the token after it belongs to another span of the type
        return "I" * (length - 1) + ("E" if touches_after else "I")
    if scheme == "IOB2":
        return "B" + "I" * (length - 1)
    if scheme == "IOE2":
        return "I" * (length - 1) + "E"
    begin, inside, end, single = {"IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}[scheme]
    return single if length == 1 else begin + inside * (length - 2) + end


def tags_of(row: Row, scheme: str) -> list[str]:
    """Return the tags of a row in a scheme."""
    name, _, suffixed = scheme.partition("-")
    tags: list[str] = []
    for place, (length, kind) in enumerate(row):
        if kind is None:
            tags += ["O"] * length
            continue
        before = row[place - 1][1] if place else None
        after = row[place + 1][1] if place + 1 < len(row) else None
        for letter in letters_of(name, length, before == kind, after == kind):
            tags.append(f"{kind}-{letter}" if suffixed else f"{letter}-{kind}" if kind else letter)
    return tags


def spans_of(row: Row) -> list[tuple[int, int, str]]:
    """Return the spans of a row: start, end (exclusive) and type."""
    spans, at = [], 0
    for length, kind in row:
        if kind is not None:
            spans.append((at, at + length, kind))
        at += length
    return spans
