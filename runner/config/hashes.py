"""Hashes of a resolved config, which decide whether runs are equal or comparable.

They depend on options and on the stable names of classes (`runner.common.class_names`), never of module paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from runner.common.class_names import with_stable_names
from runner.config.schema import NOTES, Plain

_SEVERAL_RUNS = ("turn", "repeat", "sweep", "search", "resume")
_NO_RECORD = (*_SEVERAL_RUNS, "tracker", "cache_dir", "runs_dir", "run_plots", "system_metrics_s", "plugins", *NOTES)
_NO_RESULT = (*_NO_RECORD, "data_dir")
_NO_COMPARISON = ("batching", "seed", "baselines", "ranks", "shard")
_ABSENT = (("init_from", None), ("ranks", 1), ("shard", "none"))  # values of options that older runs do not have


def name_of_job(config: Plain) -> str:
    """Return the options that most sweeps vary: strategy, seed, and turn, ranks and shard if not the defaults."""
    batching = config["batching"]
    assert isinstance(batching, Mapping)
    turn = f"-t{config['turn']}" if config["turn"] != 1 else ""
    ranks = f"-r{config['ranks']}" if config.get("ranks", 1) != 1 else ""
    shard = "-shard" if config.get("shard", "none") != "none" else ""
    return f"{batching['name']}-s{config['seed']}{turn}{ranks}{shard}"


def config_hash(config: Plain) -> str:
    """Hash everything that determines a run's result; it does not depend on folders and trackers."""
    return _hash(_without(config, _NO_RESULT))


def job_hash(config: Plain) -> str:
    """Hash like `config_hash`, including the folder of the data, in which jobs of a sweep can differ."""
    return _hash({key: value for key, value in config.items() if key not in _NO_RECORD})


def comparison_hash(config: Plain) -> str:
    """Hash everything except batching, seed and baselines: runs with equal hashes are comparable across strategies."""
    return _hash(_without(config, (*_NO_RESULT, *_NO_COMPARISON)))


def _without(config: Plain, names: tuple[str, ...]) -> dict[str, object]:
    kept = {key: value for key, value in config.items() if key not in names}
    if isinstance(dataset := kept.get("dataset"), Mapping):  # the fingerprint identifies the data, wherever it lies
        kept["dataset"] = {key: value for key, value in dataset.items() if key != "data_dir"}
    return kept


def _hash(config: Plain) -> str:
    """Hash a config; options with the values of `_ABSENT` count as absent, so that older runs keep their hashes."""
    config = {key: value for key, value in config.items() if (key, value) not in _ABSENT}
    text = json.dumps(with_stable_names(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
