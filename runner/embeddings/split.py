"""What an embedding is told of the data, when it describes how much of it it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from runner.ragged import Ragged


class Split(Protocol):
    """A whole split: ids of each feature."""

    @property
    def features(self) -> Mapping[str, Ragged]: ...


Splits = Mapping[str, Split]
