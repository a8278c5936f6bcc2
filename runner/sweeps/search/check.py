"""Whether a config's names and values are allowed, without its data and without building any of it."""

from __future__ import annotations

from typing import Any

from runner.config.instantiate import check_nodes, check_options
from runner.config.schema import Settings, check_root

_GIVEN = ("params", "total_updates", "updates_per_epoch", "input_size", "causal", "vocabs")  # by a running program


def check_config(config: dict[str, Any]) -> None:
    """Raises HydromelError: an option that is unknown, missing, of another type, or out of its range."""
    check_options(check_root, config, "")
    check_options(Settings, config["train"], "train")
    for key, node in config.items():
        if key != "search":
            check_nodes(node, key, _GIVEN, config["plugins"])
