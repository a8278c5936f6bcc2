"""The command `hydromel-init`: make a folder for a project, with an experiment, a part of one's own, tests and data."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from runner.common.errors import HydromelError
from runner.common.files import cannot_write
from runner.terminal.command_line import Parser, exit_code

log = logging.getLogger(__name__)
# files of a project, and their templates in runner/cli/project, which are no modules or configs of this package
_FILES = {
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
    ".github/workflows/ci.yml": "ci.yml.txt",
    "requirements.txt": "requirements.txt.txt",
    "data/train.csv": "train.csv.txt",
    "my_configs/experiment/first.yaml": "first.yaml.txt",
    "my_configs/encoder/token_layer.yaml": "token_layer.yaml.txt",
    "my_parts/__init__.py": None,
    "my_parts/encoder.py": "encoder.py.txt",
    "tests/test_encoder.py": "test_encoder.py.txt",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit codes: 0, 1 (an error, in one line)."""
    return exit_code(lambda: _init(parser().parse_args(arguments)))


def _init(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    try:
        if folder.is_dir() and (found := sorted(path.name for path in folder.iterdir())):
            raise HydromelError(f"{folder} is not empty ({found[0]}); give a new folder")
        for name, template in _FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"" if template is None else (files("runner.cli") / "project" / template).read_bytes())
    except OSError as error:
        raise cannot_write(folder, error) from error
    log.info("%s: a project of %d files; README.md has its commands:", folder, len(_FILES))
    log.info("  cd %s", shlex.quote(str(folder)))
    log.info("  hydromel --config-dir my_configs experiment=first")
    log.info("  python -m pytest tests")
    return 0


def parser() -> Parser:
    command = Parser(
        prog="hydromel-init",
        description="Make a folder for a project: a config, an encoder of your own with its test, a few rows of data, "
        "a CI file and a README with the commands.",
    )
    command.add_argument("folder", type=Path, metavar="FOLDER", help="a new or empty folder")
    return command


if __name__ == "__main__":
    sys.exit(main())
