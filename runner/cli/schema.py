"""`hydromel --schema FILE`: write a JSON schema of the config, by which an editor completes and checks YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.common.command_line import Parser, exit_code
from runner.common.files import check_writable, to_json, write_output

FLAG = "--schema"


def main(arguments: Sequence[str]) -> int:
    """Return the exit code: 0, or 1 after one line that says what is wrong."""
    return exit_code(lambda: _write(arguments))


def _write(arguments: Sequence[str]) -> int:
    parser = Parser(prog="hydromel", description="Write a JSON schema of the config.")
    parser.add_argument(FLAG, type=Path, required=True, metavar="FILE", help="where to; nothing is run")
    file: Path = parser.parse_args(arguments).schema
    check_writable(file)
    # imports the classes that configs name, and so torch: a mistyped flag need not wait for that
    from runner.config.json_schema import config_schema

    write_output(file, to_json(config_schema()))
    return 0
