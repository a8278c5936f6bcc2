"""Words composed of characters are batch-invariant; the audit finds a composition that leaks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runner.audit.checks.verdict import AuditReport
from runner.audit.config_audit import AuditOptions, audit_config
from runner.config.compose import compose_strategies
from runner.embeddings import char
from runner.ragged.ragged import Ragged

SMALL = ["threads=1", "features.words.max_size=30", "encoder.hidden=6", "cache_dir=null"]
SIZES = {"char_conv": ["embedding.filters=5"], "char_rnn": ["embedding.hidden=4"], "word_char": []}


def audited(embedding: str, batching: str, *overrides: str) -> AuditReport:
    torch.set_num_threads(1)
    given = ["task=tag", "encoder=bgru", f"batching={batching}", f"embedding={embedding}", *overrides]
    configs, left_out = compose_strategies([*given, *SMALL, *SIZES[embedding]], None)
    quick = AuditOptions(rows=10, longest=9, arithmetics=("float32",), heat=False, explained=False)  # of the control
    return audit_config(configs, left_out, quick)


@pytest.mark.parametrize("embedding", SIZES)
def test_characters_are_batch_invariant(embedding: str) -> None:
    report = audited(embedding, "padmask,packed,timestep,unmasked")
    report.raise_if_failed()
    assert report.controls == ("unmasked",)
    assert {verdict.check for verdict in report.failures(controls=True)} >= {
        "mixed_lengths",
        "width",
        "content",
        "nan",
        "dropout",
    }


def test_a_composition_that_depends_on_other_words_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(x: Ragged) -> Tensor:
        """The mean of each row, including the zeros after its end."""
        return x.pad().values.mean(dim=1)

    monkeypatch.setattr(char, "max_pool", leaking)
    report = audited("char_conv", "packed")
    by_check = {verdict.check: verdict.finding for verdict in report.failures() if verdict.finding is not None}
    assert {"mixed_lengths", "batches"} <= by_check.keys()
    assert by_check["mixed_lengths"].module == "embedding (CharConv)"
