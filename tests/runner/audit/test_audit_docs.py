"""docs/audit.md is current: its tables equal the code, and its example runs."""

from __future__ import annotations

import random
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.audit_others import cases, table_row
from runner.audit.checks import metric, tolerance
from runner.audit.checks.kinds import HINTS
from runner.audit.checks.variations import CHECKS
from runner.audit.gallery.cases import BUGS

ROOT = Path(__file__).parents[3]
SEED = 1
DOCS = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
TESTED = dict(re.findall(r"(torch|pytorch-crf|transformers) (\d+\.\d+\.\d+)", DOCS))


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the table that starts with `heading`."""
    lines = DOCS[DOCS.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"


def test_constants_of_tolerances_are_documented() -> None:
    assert f"λ = {tolerance.SAFETY:g}," in DOCS
    assert f"{tolerance.MEASURED_SAFETY:g} times the largest error" in DOCS
    assert metric.ALLOWED == 1e-9
    assert "differ by 10⁻⁹ of their size" in " ".join(DOCS.split())


def test_checks_kinds_and_gallery_match_the_code() -> None:
    assert dict(rows_of("Check")) == {f"`{name}`": varied for name, varied in CHECKS.items()}
    assert dict(rows_of("Kind")) == HINTS
    gallery = [(name, module.strip("`"), kind, check.strip("`")) for name, module, kind, check in rows_of("Bug")]
    assert gallery == [(bug.name, bug.module, bug.kind, bug.check) for bug in BUGS]


def test_the_table_of_other_modules_has_known_results() -> None:
    marks = {(row[0], row[1]): row[2:4] for row in rows_of("Module")}
    assert marks["`nn.LSTM`", "bidirectional, padded, no lengths"] == ["leaks", "leaks"]
    assert marks["`nn.LSTM`", "bidirectional, `pack_padded_sequence`"] == ["passes", "passes"]
    assert marks["`nn.BatchNorm1d`", "over padded `(B, C, T)`"] == ["passes", "leaks"]


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_the_table_of_other_modules_is_current(whole: bool) -> None:
    """A new audit gives the line of the table: of one use of each module, drawn with a fixed seed, or of all uses."""
    assert set(TESTED) == {"torch", "pytorch-crf", "transformers"}
    for package, tested in TESTED.items():
        if installed(package) != tested:
            pytest.skip(f"the docs' table is of {package} {tested}; here it is {installed(package)}")
    torch.set_num_threads(1)
    uses = list(zip(cases(), rows_of("Module"), strict=True))
    assert [(case.module, case.use) for case, _ in uses] == [(row[0], row[1]) for _, row in uses]
    drawn = {case.module: (case, row) for case, row in random.Random(SEED).sample(uses, len(uses))}
    for case, row in uses if whole else drawn.values():
        assert list(table_row(case, case.audit()).values()) == row


def test_the_example_passes_and_fails_without_lengths() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCS, re.S)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/audit.md", "exec"), names)
    names["test_the_tagger_is_batch_invariant"]()
    packed = [line for line in example.splitlines() if "pack" in line and "self" not in line]
    wrong = example.replace(f"{packed[0]}\n", "")
    wrong = re.sub(r"states, _ = nn\.utils.*", "states, _ = self.lstm(vectors)", wrong)
    exec(compile(wrong, "docs/audit.md", "exec"), names)
    message = re.search(r"fails with:\n\n```\n(.*) \.\.\.\n```", DOCS)
    assert message is not None
    with pytest.raises(AssertionError, match=re.escape(message[1])):
        names["test_the_tagger_is_batch_invariant"]()
