"""Lines that a command prints as it goes on."""

from __future__ import annotations


def say(line: str) -> None:
    print(line, flush=True)
