"""The parser of Hydra's own flags."""

from __future__ import annotations

from omegaconf import OmegaConf

from runner.compat.hydra import arguments_parser, root_of


def test_the_parser_knows_hydras_flags_and_leaves_overrides() -> None:
    parsed = arguments_parser().parse_args(["--multirun", "--config-dir", "mine", "encoder=rnn,conv"])
    assert (parsed.multirun, parsed.config_dir, parsed.overrides) == (True, "mine", ["encoder=rnn,conv"])


def test_the_whole_config_of_a_section() -> None:
    config = OmegaConf.create({"a": {"b": {"c": 1}}})
    assert root_of(config.a.b) is config
    assert root_of(config) is config
