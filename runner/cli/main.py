"""The command `hydromel`: training, or another command by its name (`hydromel compare` is `hydromel-compare`).

A command's module is imported once its name is known, so that help, version and mistyped names are answered at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path

from runner.cli.text_io import stdout_errors
from runner.common.errors import HydromelError, did_you_mean, shortened
from runner.common.imports import importing, leave_all_at_exit
from runner.terminal.command_line import exit_code

TRAIN = "train"
# name: (module with the function `main`, what the command does)
COMMANDS = {
    TRAIN: ("runner.cli.train", "train one model, a sweep (-m) or a search; the word `train` may be left out"),
    "compare": ("reporting.compare", "compare finished runs: tables, plots and an HTML page"),
    "plan": ("runner.cli.plan", "predict padding, speed and memory without training"),
    "audit": ("runner.cli.audit", "check that outputs do not depend on batching"),
    "predict": ("runner.cli.predict", "label or tag new text with a finished run"),
    "evaluate": ("runner.cli.evaluate", "evaluate a finished run, or score any text with a language model"),
    "generate": ("runner.cli.generate", "continue prompts with a language model"),
    "inspect": ("runner.cli.inspect", "show which cells and gates of a language model track which feature of a text"),
    "lr": ("runner.cli.lr_range", "learning-rate range test"),
    "init": ("runner.cli.init", "make a folder for a project: config, plugin, test, data, CI file"),
    "export": ("runner.cli.export", "write a finished run as an ONNX or torch file for other programs"),
    "sync": ("runner.cli.sync", "deliver records that a tracker has missed"),
}
_HELP = """usage: hydromel [COMMAND] [ARGUMENT ...]

Train NLP models on variable-length text, and measure what batching costs.

commands:
{commands}

examples:
  hydromel data=FILE                                  train on a file of your own
  hydromel task=tag encoder=conv train.epochs=3       train a tagger on the built-in corpus
  hydromel -m batching=padmask,packed sweep.id=tour   the same model under two batching strategies
  hydromel compare tour                               compare the runs of this sweep
  hydromel predict RUN --input FILE                   use a run: its folder, name or id

`hydromel COMMAND --help` lists the arguments of a command, `hydromel train --help` also the groups and names of the
config. Each command is also a program of its own: hydromel-compare, hydromel-plan, ...
Completion: `eval "$(hydromel -sc install=bash)"` in bash, `hydromel -sc install=fish | source` in fish; for zsh see
docs/commands.md.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, otherwise training, and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    first = given[0] if given else ""
    if first in COMMANDS:
        return _run(first, given[1:])
    if first in ("-h", "--help", "help", "--version"):
        return exit_code(lambda: _about(first))
    if first and first[0] not in "-+~" and "=" not in first:
        return exit_code(lambda: _refuse(first))
    if first in ("-sc", "--shell-completion") and given[1:2] and given[1].startswith("query="):
        return exit_code(lambda: _complete(given))
    return _run(TRAIN, given)


def program() -> int:
    """Run the command that this program is named after, such as hydromel-compare, and return its exit code."""
    return _run(Path(sys.argv[0]).stem.removeprefix("hydromel-"), sys.argv[1:])


def _complete(given: list[str]) -> int:
    """Print the words that complete the line of a shell, one a line, then those that Hydra proposes."""
    # imports pydantic, which help and version should not wait for
    from runner.cli.completion import LINE, proposals

    modules = {name: module for name, (module, _) in COMMANDS.items()}
    found, line = proposals(os.environ.get(LINE, "hydromel "), modules)
    sys.stdout.write("".join(f"{word}\n" for word in found))
    sys.stdout.flush()
    if line is None:
        return 0
    os.environ[LINE] = line
    return _run(TRAIN, given)


def _run(name: str, arguments: list[str]) -> int:
    if sys.stderr.isatty():  # at once, since the imports of a command may take seconds
        sys.stderr.write(f"hydromel {name} ...\n")
        sys.stderr.flush()
    leave_all_at_exit()
    try:
        with importing():
            module = import_module(COMMANDS[name][0])
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    code: int = module.main(arguments)
    return code


def _about(flag: str) -> int:
    commands = "\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())
    text = f"hydromel {metadata.version('hydromel')}\n" if flag == "--version" else _HELP.format(commands=commands)
    with stdout_errors():
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def _refuse(word: str) -> int:
    guess = f"; did you mean data={word}?" if os.path.isfile(word) else did_you_mean(word, COMMANDS)
    raise HydromelError(
        f"{shortened(word)}: no such command{guess} Commands: {', '.join(COMMANDS)}; options of training are "
        "GROUP=NAME or key=value"
    )


if __name__ == "__main__":
    sys.exit(main())
