"""Completion in the shell: the names of commands, their flags and runs here; options of the config by Hydra.

The shell's function, which `hydromel -sc install=SHELL` prints, asks `hydromel -sc query=SHELL` for the words that fit;
it has the line in COMP_LINE.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path

from runner.cli.train_help import train_parser
from runner.common.run_names import folders_of_runs
from runner.terminal.command_line import Parser

LINE = "COMP_LINE"  # of the environment
_MOST_RUNS = 200
_RUN_ARGUMENTS = ("run", "what", "named", "words")  # arguments that name runs


def proposals(line: str, modules: Mapping[str, str]) -> tuple[list[str], str | None]:
    """Return the words that may stand at the end of a line, and the line for Hydra to complete; None: nothing for it.

    Args:
        line: `hydromel ...` up to the cursor.
        modules: the module of each command.
    """
    program, *words = line.split()
    word = "" if line.endswith(" ") or not words else words.pop()
    if not words and not word.startswith("-"):
        return [name for name in modules if name.startswith(word)], line
    if not words or words[0] not in modules:
        words = ["train", *words]
    name, *given = words
    command: Parser = train_parser() if name == "train" else import_module(modules[name]).parser()
    actions = command.arguments
    before = given[-1] if given else ""
    asked = next((action for action in actions if before in action.option_strings), None)
    if asked is not None and asked.nargs != 0:  # the value of a flag
        return [str(choice) for choice in asked.choices or () if str(choice).startswith(word)], None
    found = [flag for action in actions for flag in action.option_strings if word and flag.startswith(word)]
    places = [action.dest for action in actions if not action.option_strings]
    takes_runs, takes_options = any(place in _RUN_ARGUMENTS for place in places), "overrides" in places
    if (takes_runs or name == "audit") and not word.startswith("-"):
        found += [run for run in _runs() if run.startswith(word)]
    for_hydra = [program, *(item for item in given if "=" in item or name == "train"), word]
    return found, " ".join(for_hydra) if takes_options and not word.startswith("-") else None


def _runs() -> list[str]:
    return [str(folder) for folder in islice(folders_of_runs(Path("runs")), _MOST_RUNS)]
