"""The parser of Hydra's own flags."""

from __future__ import annotations

from runner.compat.hydra import arguments_parser


def test_the_parser_knows_hydras_flags_and_leaves_overrides() -> None:
    parsed = arguments_parser().parse_args(["--multirun", "--config-dir", "mine", "encoder=rnn,conv"])
    assert (parsed.multirun, parsed.config_dir, parsed.overrides) == (True, "mine", ["encoder=rnn,conv"])
