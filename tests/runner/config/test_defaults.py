"""The options of a run that differ from the defaults of the configs that it chose."""

from __future__ import annotations

import pytest

from runner.config.defaults import differing
from tests.helpers.composed import run_config


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task=tag", "encoder=conv"], {}),
        (["task=tag", "encoder=conv", "encoder.filters=200", "features=[words,casing]"], {"encoder.filters": 200}),
        (["encoder=bgru"], {}),
        (["encoder=bgru", "encoder.cell=rnn"], {"encoder.cell": "rnn"}),
        (["embedding=word_char", "embedding.parts.words.size=50"], {"embedding.parts.words.size": 50}),
        (["batching=auto"], {}),
        (["batching.batch_size=16"], {"batching.batch_size": 16}),
    ],
)
def test_only_what_was_changed_differs(overrides: list[str], expected: dict[str, object]) -> None:
    found = differing(run_config(*overrides).resolved)
    notes = ("given", "sweep", "tracker", "cache_dir", "threads", "device", "baselines", "run_plots", "data_dir")
    assert {key: value for key, value in found.items() if not key.startswith(notes)} == expected
