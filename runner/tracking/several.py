"""Several trackers of one run: each delivers by itself, and one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import GetPydanticSchema
from pydantic_core.core_schema import any_schema

from runner.common.errors import HydromelError
from runner.common.types import Name
from runner.config.instantiate import check_kinds
from runner.tracking.tracker import DeliveryError, Tracker

_UNCHECKED = GetPydanticSchema(lambda source, handler: any_schema())  # pydantic has no schema for protocols


@dataclass(kw_only=True, eq=False)
class SeveralTrackers:
    """A tracker that passes every call on to several trackers.

    Args:
        trackers: those trackers, by name.
    """

    trackers: dict[Name, Annotated[Tracker, _UNCHECKED]]

    def __post_init__(self) -> None:
        for name, tracker in self.trackers.items():
            check_kinds(tracker, f"tracker.trackers.{name}", Tracker)

    def check(self) -> None:
        if not self.trackers:
            raise HydromelError("tracker.trackers is empty; name some: tracker=[mlflow,tensorboard]")
        for tracker in self.trackers.values():
            tracker.check()

    def target(self, folder: Path) -> str:
        return ", ".join(tracker.target(folder) for tracker in self.trackers.values())

    def deliver(self, folder: Path, final: bool = False) -> None:
        _each(self.trackers, lambda tracker: tracker.deliver(folder, final))

    def describe(self) -> str:
        return "\n".join(tracker.describe() for tracker in self.trackers.values())


def parts_of(tracker: Tracker) -> Mapping[str, Tracker]:
    """Return the trackers in a `SeveralTrackers`, by name; any other tracker is its own only part."""
    return tracker.trackers if isinstance(tracker, SeveralTrackers) else {"": tracker}


def _each(trackers: Mapping[str, Tracker], deliver: Callable[[Tracker], None]) -> None:
    """Call `deliver` with every tracker. Raises DeliveryError with the errors of all that failed."""
    errors: list[HydromelError] = []
    for tracker in trackers.values():
        try:
            deliver(tracker)
        except HydromelError as error:
            errors.append(error)
    if errors:
        raise DeliveryError("; ".join(map(str, errors))) from errors[0]
