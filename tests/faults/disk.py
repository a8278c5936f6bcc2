"""Full disks: a run says so in a line, and goes on to the same bits once there is room."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.forked import Faults, Work, call
from tests.faults.kills import differences, finish, reference, wrap
from tests.faults.report import Part
from tests.faults.scenarios import SCENARIOS, new_run

_SIZES = (1, 200, 700, 1500, 4000, 9000, 20_000)  # bytes that a file may have
_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def disk(count: int, seed: int, folder: Path) -> Part:
    """Let `count` runs meet a full disk: files that may not grow beyond a size, or writes that fail from one on."""
    part = Part("full disks")
    wholes = [reference(scenario) for scenario in SCENARIOS]
    for number in range(count):
        rng = Random(f"{seed} disk {number}")
        whole, own = wholes[(number + seed) % len(wholes)], folder / f"disk-{number}"
        own.mkdir(parents=True)
        run = new_run(whole.scenario, own / "run")
        if number % 2:
            size = rng.choice(_SIZES)
            title, ending = f"files of {size} bytes", call(run, file_size=size)
        else:
            where, code = rng.choice(["os.fsync", "os.replace"]), rng.choice(_ERRORS)
            passage = 1 + rng.randrange(
                whole.passages[f"any file {'half written' if where == 'os.fsync' else 'not renamed'}"]
            )
            title = f"{errno.errorcode[code]} at {where} {passage}"
            ending = call(_failing(run, where, passage, code))
        faults: Faults = [(ending.fault, ending.last_line)] if ending.fault else []
        part.add(
            f"{number} {whole.scenario.name}, {title}",
            faults + finish(own / "run", run) + differences(whole.folder, own / "run"),
        )
    return part


def _failing(run: Work, where: str, passage: int, code: int) -> Work:
    """Return a run of which every call of a function from the `passage`-th on fails."""

    def work() -> object:
        passed = 0

        def fail(real: Any, arguments: Any, named: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed >= passage:
                raise OSError(code, os.strerror(code))
            return real(*arguments, **named)

        wrap(where, fail)
        return run()

    return work
