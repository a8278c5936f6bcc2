"""The help of training: its flags, and the groups and names of the config, which are read from the folders' names."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from runner.config.groups import names_by_group
from runner.terminal.command_line import Parser

_WIDTH = 110  # columns of the list of groups
_EXAMPLES = """examples:
  hydromel data=FILE                                                  one run on a file of your own
  hydromel task=tag dataset=wnut17 batching=packed data_dir=DATA      one run
  hydromel -m batching=size1,bucketed,padmask,packed seed=1,2,3       a sweep
  hydromel experiment=compare_batching                                a named sweep
  hydromel resume=RUN                                                 continue a run: its folder, name or id
  hydromel --cfg job                                                  every option and its value

groups (GROUP=NAME):
"""


def train_parser() -> Parser:
    """Return a parser that describes the flags of training, and prints the help; Hydra itself reads the arguments."""
    command = Parser(
        prog="hydromel",
        description="Train one model, a sweep (-m) or a search. A config is composed from one name per group; any of "
        "its options can be changed. Every option is described in docs/options.md.",
    )
    add = command.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="GROUP=NAME or key=value, after all flags")
    add("-m", "--multirun", action="store_true", help="run all combinations of comma-separated values")
    add("-c", "--cfg", choices=("job", "hydra", "all"), help="print the config instead of running it")
    add("-p", "--package", metavar="KEY", help="the section that --cfg prints")
    add("--resolve", action="store_true", help="resolve references in what --cfg prints")
    add("-cd", "--config-dir", metavar="DIR", help="a folder with further configs")
    add("-i", "--info", nargs="?", help="print information on how the config is composed")
    add("--schema", metavar="FILE", help="write a JSON schema of the config, for editors, and run nothing")
    completion = (
        'print the code that sets up completion: eval "$(hydromel -sc install=bash)" in bash (docs/commands.md)'
    )
    add("-sc", "--shell-completion", metavar="install=SHELL", help=completion)
    add("--hydra-help", action="store_true", help="show the help of Hydra, which composes the config")
    return command


def print_help(arguments: Sequence[str]) -> None:
    """Print the help; the arguments may name a folder with further configs (--config-dir)."""
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    finder.add_argument("-cd", "--config-dir", type=Path)
    folder = finder.parse_known_args(arguments)[0].config_dir
    command = train_parser()
    command.epilog = _EXAMPLES + "\n".join(_lines(names_by_group([] if folder is None else [folder])))
    command.print_help()


def _lines(named: dict[str, list[str]]) -> list[str]:
    indent = " " * 13
    lists = (f"  {group:<11}{', '.join(names)}" for group, names in named.items())
    return [textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False) for text in lists]
