"""Private APIs of Hydra. It is imported on use, so that the error for a missing name is one line."""

from __future__ import annotations

from argparse import ArgumentParser

from runner.compat.private import private_api

CHECKED = "1.3.8"


def arguments_parser() -> ArgumentParser:
    """Return the parser of Hydra's own flags; Hydra itself reports a mistake with its usage and exit code 2."""
    with private_api("hydra-core", CHECKED):
        from hydra._internal.utils import get_args_parser
    return get_args_parser()
