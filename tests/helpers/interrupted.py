"""Runs that die at a chosen call, and the comparison of such a run, once finished, with one that was left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from tests.helpers.composed import run

BY_THE_CLOCK = ("run_id", "seconds", "speed", "arithmetic", "energy", "memory", "baselines", "provenance")


class Killed(Exception):
    pass


def after(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which dies at its call number `count`."""
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise Killed
        return function(*arguments, **options)

    return wrapped


def interrupted(place: Any, name: str, folder: Path, *overrides: str, call: int = 1) -> None:
    """Make a run that dies when it calls the function `name` of a module or class for the `call`th time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, after(call, getattr(place, name)))
        with pytest.raises(Killed):
            run(folder, *overrides)


def assert_equal(whole: Path, cut: Path, same_plan: bool = True) -> None:
    """All that two runs record is the same, except what depends on the clock."""
    for name in ("last", "best"):
        one, other = (load_file(folder / run_schema.CHECKPOINTS / f"{name}.safetensors") for folder in (whole, cut))
        parameters = {key for key in one if name == "last" or key.startswith("model.")}
        assert all(torch.equal(one[key], other[key]) for key in parameters), name
    assert records(whole) == records(cut)
    one, other = (json.loads((folder / run_schema.RESULT).read_text(encoding="utf-8")) for folder in (whole, cut))
    assert one.keys() == other.keys()
    for key in one.keys() - {*BY_THE_CLOCK, "changes"}:
        assert one[key] == other[key], key
    if same_plan:
        assert one["memory"]["peak_batch"] == other["memory"]["peak_batch"]
    assert one["provenance"]["config_hash"] == other["provenance"]["config_hash"]
    baselines = [
        {name: {**figures, "seconds": 0} for name, figures in item["baselines"].items()} for item in (one, other)
    ]
    assert baselines[0] == baselines[1]
    lengths = [[{**entry, "seconds": 0} for entry in item["speed"]["by_length"]] for item in (one, other)]
    assert lengths[0] == lengths[1] != []
    for path in (whole / run_schema.PREDICTIONS).iterdir():
        assert path.read_bytes() == (cut / run_schema.PREDICTIONS / path.name).read_bytes(), path.name
    with np.load(whole / run_schema.OUTCOMES) as outcomes, np.load(cut / run_schema.OUTCOMES) as others:
        assert all(np.array_equal(outcomes[key], others[key]) for key in outcomes)
    assert json.loads((cut / run_schema.RUN).read_text(encoding="utf-8"))["status"] == run_schema.FINISHED


def records(folder: Path) -> list[tuple[int, int, str, float | None]]:
    """(step, epoch, name, value) of all records, each once; of what depends on the clock, no value."""
    results = []
    for line in (folder / run_schema.METRICS).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for name, value in record["metrics"].items():
            results.append((record["step"], record["epoch"], name, None if "seconds" in name else value))
    return sorted(results, key=lambda item: item[:3])
