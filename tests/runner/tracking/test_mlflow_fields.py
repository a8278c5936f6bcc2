"""What MLflow shows of a run, of whose names anyone may be the author."""

from __future__ import annotations

from runner.common.records import RunRecord
from runner.tracking.mlflow_fields import note


def test_a_note_has_no_links_and_no_pages_out_of_names() -> None:
    run: RunRecord = {"run_id": "r", "created": 0.0, "status": "failed", "error": "<b>\x1b[2J [x](y)\n# z"}
    run["tags"] = {"batching": "![p](http://x)", "task": "tag", "dataset": "sst_2 `a`"}
    assert note(run, None) == (
        "**!\\[p\\](http://x)** · tag · sst_2 \\`a\\`\n\nfailed: &lt;b&gt;\ufffd\\[2J \\[x\\](y) # z"
    )
