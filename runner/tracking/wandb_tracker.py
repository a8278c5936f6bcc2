"""Delivery of runs' folders to Weights & Biases.

A run has the same id in W&B as in `run.json`, so a later delivery continues it. The step of its history is the number
of updates; W&B ignores steps that it already has.
"""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from runner.common import run_schema
from runner.common.errors import HydromelError, without_credentials
from runner.common.types import FilePath, Seconds, Text
from runner.tracking import fields
from runner.tracking.run_folder import read_metrics, read_result, read_run
from runner.tracking.tracker import (
    DeliveryError,
    Pause,
    fingerprint_of,
    from_working_directory,
    load_progress,
    lock,
    save_progress,
)

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)
_HOST = "https://api.wandb.ai"
_KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


@dataclass(kw_only=True, eq=False)
class WandbTracker:
    """A tracker that makes one run in Weights & Biases for each run's folder.

    Args:
        project: project of the runs.
        entity: user or team that the project belongs to; None: the user's default.
        mode: online, or offline: files that `wandb sync` uploads.
        dir: folder in which W&B makes its folder `wandb`; a relative one is relative to the run's working directory.
        timeout_s: maximum seconds to wait for the server, and for the upload at the end.
        retry_s: seconds to wait after a failure; doubled after each further one, up to 600.
    """

    project: Text
    entity: Text | None
    mode: Literal["online", "offline"]
    dir: FilePath
    timeout_s: Seconds
    retry_s: Seconds
    _pause: Pause = field(init=False)
    # folder -> run of W&B, which stays open during training
    _open: dict[Path, Run] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._pause = Pause(self.retry_s)

    def check(self) -> None:
        if find_spec("wandb") is None:
            raise HydromelError("tracker=wandb needs W&B: pip install hydromel[wandb]")
        if self.mode == "online" and not _has_key():
            raise HydromelError(
                "tracker=wandb: no key for Weights & Biases; run `wandb login`, set WANDB_API_KEY, or give "
                "tracker.mode=offline"
            )

    def target(self, folder: Path) -> str:
        place = from_working_directory(folder, self.dir) if self.mode == "offline" else _server()
        return f"wandb:{place} {self.entity or ''}/{self.project}"

    def describe(self) -> str:
        if self.mode == "online":
            return f"Weights & Biases: project {self.project}" + (f" of {self.entity}" if self.entity else "")
        place = Path(self.dir).absolute() / "wandb"
        return f"Weights & Biases, offline: `wandb sync '{place}'/offline-run-*` uploads the runs"

    def deliver(self, folder: Path, final: bool = False) -> None:
        if not final and self._pause.is_on:
            return
        try:
            with lock(folder):
                self._send(folder)
        except Exception as error:  # no error of wandb may end training
            self._pause.lengthen()
            if (run := self._open.pop(folder, None)) is not None:
                with contextlib.suppress(Exception):
                    run.finish(exit_code=1)
            reason = " ".join(without_credentials(str(error)).split()) or type(error).__name__
            raise DeliveryError(f"Weights & Biases: {reason:.300}") from error
        self._pause.end()

    def _send(self, folder: Path) -> None:
        fingerprint, target, record = fingerprint_of(folder), self.target(folder), read_run(folder)
        progress = load_progress(folder, target)
        if folder not in self._open:
            self._open[folder] = self._connected(folder)
        run = self._open[folder]
        for line, end in read_metrics(folder, progress.get("metrics_bytes", 0)):
            values = {name: value for name, value in line["metrics"].items() if value is not None}
            run.log({**values, "epoch": line["epoch"], "_timestamp": line["time"]}, step=line["step"])
            progress["metrics_bytes"] = end
        if record["status"] != run_schema.RUNNING:
            if (result := read_result(folder)) is not None:
                run.summary.update(fields.summary(result))
            run.notes = fields.note(record, result)
            del self._open[folder]
            run.finish(exit_code=0 if record["status"] == run_schema.FINISHED else 1)
        save_progress(folder, target, progress | {"fingerprint": fingerprint})

    def _connected(self, folder: Path) -> Run:
        """Return the run at W&B, new or continued, with its options."""
        record, place = read_run(folder), from_working_directory(folder, self.dir)
        place.mkdir(parents=True, exist_ok=True)
        import wandb

        settings = wandb.Settings(
            mode=self.mode,
            root_dir=str(place),
            init_timeout=self.timeout_s,
            finish_timeout=self.timeout_s,
            finish_timeout_raises=True,
            silent=True,
            console="off",  # the run's folder has the console's output
            save_code=False,
            disable_git=True,
            x_disable_stats=True,
            x_save_requirements=False,
            x_start_time=record["created"],
        )
        return wandb.init(
            project=self.project,
            entity=self.entity,
            id=record["run_id"],
            name=record.get("name"),
            group=record.get("sweep_id"),
            tags=[record["tags"][key] for key in ("task", "dataset", "encoder", "batching") if key in record["tags"]],
            config=fields.params(folder),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )


def _server() -> str:
    return without_credentials(os.environ.get("WANDB_BASE_URL", _HOST)).rstrip("/")


def _has_key() -> bool:
    """Return True if W&B finds a key; otherwise it would ask for one in the middle of a run."""
    if any(os.environ.get(name) for name in _KEYS):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(_server()).hostname or "") is not None
    return False
