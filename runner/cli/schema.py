"""`hydromel --schema FILE`: write a JSON schema of the config, so that an editor completes and checks YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.common.command_line import Parser, exit_code
from runner.common.files import check_writable, to_json, write_output

FLAG = "--schema"


def main(arguments: Sequence[str]) -> int:
    """Run the command. Exit codes: 0, 1 (an error, in one line)."""
    return exit_code(lambda: _write(arguments))


def _write(arguments: Sequence[str]) -> int:
    parser = Parser(prog="hydromel", description="Write a JSON schema of the config.")
    parser.add_argument(FLAG, type=Path, required=True, metavar="FILE", help="file to write; nothing is run")
    file: Path = parser.parse_args(arguments).schema
    check_writable(file)
    # imports torch, which the message for a mistyped flag should not wait for
    from runner.config.json_schema import config_schema

    write_output(file, to_json(config_schema()))
    return 0
