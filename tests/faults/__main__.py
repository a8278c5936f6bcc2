"""Run the campaign, or parts of it: `python -m tests.faults --kills 100 --seed 1 --report FILE`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import configs, disk, files, kills, report, scenarios, servers, writers

PARTS: dict[str, tuple[int, Callable[[int, int, Path], report.Part]]] = {  # cases of a large campaign, and the part
    "kills": (100, kills.kills),
    "files": (3000, files.files),
    "configs": (3000, configs.configs),
    "writers": (3, writers.writers),
    "disk": (40, disk.disk),
    "servers": (30, servers.servers),
}


def main() -> int:
    """Return 0 if everything survived."""
    options = _parser().parse_args()
    chosen = {name: getattr(options, name) for name in PARTS if getattr(options, name) is not None}
    chosen = chosen or {name: count for name, (count, _) in PARTS.items()}
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=options.folder))
    parts = []
    try:
        scenarios.prepare(folder)
        scenarios.warm_up(folder)
        for name, count in chosen.items():
            start = time.monotonic()
            parts.append(PARTS[name][1](count, options.seed, folder / name))
            seconds = sum(os.times()[:4])
            print(f"{name}: {time.monotonic() - start:.0f} s; {seconds:.0f} CPU s so far", file=sys.stderr, flush=True)
    finally:
        if not options.keep:
            os.chdir("/")
            shutil.rmtree(folder)
    text = f"Seed {options.seed}.\n\n{report.table(parts)}"
    if options.report is None:
        print(text, end="")
    else:
        options.report.write_text(text, encoding="utf-8")
    return int(any(part.faulty for part in parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    add = parser.add_argument
    for name, (count, _) in PARTS.items():
        add(f"--{name}", type=int, metavar="N", help=f"cases of this part (default: all parts, of this one {count})")
    add("--seed", type=int, default=1, metavar="N", help="which cases are drawn (default: %(default)s)")
    add(
        "--report",
        type=lambda name: Path(name).absolute(),
        metavar="FILE",
        help="where the table goes (default: it is printed)",
    )
    add("--folder", type=Path, metavar="DIR", help="where the runs are made (default: the system's temporary folder)")
    add("--keep", action="store_true", help="keep the runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
