"""Hashes and names of jobs that compute the same by other processes."""

from __future__ import annotations

from runner.config.hashes import comparison_hash, config_hash, job_hash, name_of_job
from tests.helpers.composed import config


def test_runs_of_several_ranks_are_other_jobs_of_one_comparison() -> None:
    alone, together, divided = (config(*options) for options in ([], ["ranks=2"], ["ranks=2", "shard=full"]))
    assert len({job_hash(job) for job in (alone, together, divided)}) == 3
    assert len({comparison_hash(job) for job in (alone, together, divided)}) == 1
    assert [name_of_job(job) for job in (alone, together, divided)] == [
        f"bucketed-s1{ranks}" for ranks in ("", "-r2", "-r2-shard")
    ]


def test_older_runs_keep_their_hashes() -> None:
    alone = config()
    older = {name: value for name, value in alone.items() if name not in ("ranks", "shard", "init_from")}
    for hash_of in (config_hash, job_hash, comparison_hash):
        assert hash_of(older) == hash_of(alone)
