"""Each known bug is caught with the expected module and kind, and its fixed twin passes."""

from __future__ import annotations

import pytest
import torch

from runner.audit.checks.kinds import HINTS
from runner.audit.gallery.cases import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_is_caught_and_named_and_its_fixed_twin_passes(bug: Bug) -> None:
    torch.set_num_threads(1)
    report = bug.audit(fixed=False)
    assert not report.passed
    assert bug.named_in(report) == (bug.module, bug.kind)
    with pytest.raises(AssertionError, match="not causal" if bug.causal else "not batch-invariant") as raised:
        report.raise_if_failed()
    assert bug.module in str(raised.value)
    assert HINTS[bug.kind] in str(raised.value)
    if bug.causal:
        assert {verdict.check for verdict in report.failures()} == {"causality"}, "no other check finds it"
    bug.audit(fixed=True).raise_if_failed()


def test_the_gallery_covers_the_kinds() -> None:
    assert len(BUGS) >= 20
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    kinds = {bug.kind for bug in BUGS}
    assert len(kinds) >= 9  # all kinds except `error` and neighbours, which have no known bug
