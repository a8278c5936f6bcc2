"""Runs in MLflow that stand for a whole sweep, with its runs below them.

A run's records name its sweep, so a run that is resumed or delivered later finds the same parent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runner.common import run_schema
from runner.common.pages import markdown_text
from runner.common.records import RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PARENT = "mlflow.parentRunId"  # MLflow's tag for the parent of a run
_OF_BOTH = ("mlflow.user", "mlflow.source.name", "mlflow.source.type")


def parent_of(client: MlflowClient, experiment_id: str, sweep_id: str, tags: Mapping[str, str]) -> str:
    """Return MLflow's id of the run that stands for a sweep; it is made if there is none.

    `tags` are those of a run below it. If several processes make a parent at once, all use the oldest one.
    """
    if not (there := _parents(client, experiment_id, sweep_id)):
        own = {key: value for key, value in tags.items() if key in _OF_BOTH}
        own |= {run_schema.TAG_PARENT: sweep_id, "mlflow.note.content": f"The runs of {markdown_text(sweep_id)}."}
        made = client.create_run(experiment_id, int(time.time() * 1000), own, sweep_id)
        there = _parents(client, experiment_id, sweep_id)
        if made.info.run_id != there[0].info.run_id:
            client.delete_run(made.info.run_id)
    return str(there[0].info.run_id)


def end_parent(client: MlflowClient, parent: str, run: RunRecord) -> None:
    """Record that a run below the parent has ended; the parent's end is that of the last such run."""
    last = client.get_run(parent).info.end_time or 0
    client.set_terminated(parent, "FINISHED", max(last, ended_at(run)))


def ended_at(run: RunRecord) -> int:
    """Return when a run ended, in milliseconds since 1970."""
    return int(1000 * (run.get("ended") or time.time()))


def _parents(client: MlflowClient, experiment_id: str, sweep_id: str) -> list[Run]:
    """Return the parents of a sweep that are not deleted, the oldest first."""
    wanted = f"tags.`{run_schema.TAG_PARENT}` = '{sweep_id}'"
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    return list(client.search_runs([experiment_id], wanted, order_by=order))
