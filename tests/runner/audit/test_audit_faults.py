"""Failed verdicts grouped by fault, the same on the console, in a page and in a test."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from runner.audit.checks import verdict as kinds
from runner.audit.checks.verdict import Finding, Heat, Report, Verdict, faults
from runner.audit.report import console_and_html
from runner.common.files import as_json

LEAK = Finding("lstm (LSTM)", kinds.VALUE_LEAK, "output", (0, 2), 0.5, 1e-14, "It changes with the padding.")
KEPT = Finding("gru (GRU)", kinds.STATE, "output", (0, 1), 0.25, 1e-14, "It remembers.")


def failed(check: str, finding: Finding, subject: str = "Tagger", mode: str = "eval") -> Verdict:
    share = math.inf if finding.allowed == 0 else finding.size / finding.allowed
    return Verdict(subject, check, mode, False, share, finding)


def test_the_test_message_equals_the_console_output(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [failed(check, LEAK, mode=mode) for mode in ("eval", "train") for check in ("company", "nan")]
    report = Report("Tagger", verdicts)
    with pytest.raises(AssertionError) as caught:
        report.raise_if_failed()
    first, *lines = str(caught.value).splitlines()
    assert first == "Tagger: not batch-invariant"
    assert lines == [
        "Tagger: value leak through padding at lstm (LSTM): output differs by 0.5, rounding allows 1e-14 (rows 0, 2; "
        "checks company, nan; eval and train mode)",
        "  It changes with the padding.",
        f"  {kinds.HINTS[kinds.VALUE_LEAK][0].upper()}{kinds.HINTS[kinds.VALUE_LEAK][1:]}.",
    ]
    console_and_html.console(report)
    assert "\n".join(lines) in capsys.readouterr().out
    Report("Tagger", [Verdict("Tagger", "company", "eval", True)]).raise_if_failed()


def test_a_faults_size_is_the_largest_finite_one() -> None:
    lost = replace(LEAK, size=math.inf, detail="It is NaN.")
    small = replace(LEAK, size=0.1, detail="It is small.")
    found = [failed("company", small), failed("huge", LEAK), failed("nan", lost)]
    (fault,) = faults(found)
    assert fault.finding is LEAK
    assert fault.checks == ["company", "huge", "nan"]
    (fault,) = faults(found[2:])
    assert "output is NaN or infinite (rows 0, 2" in fault.lines[0]
    (fault,) = faults([failed("extremes", replace(lost, quantity="error"))])
    assert "error is an error (rows" in fault.lines[0]


@pytest.mark.parametrize("kind", [kinds.STATE, kinds.RANDOM])
def test_failures_after_kept_state_are_one_fault(kind: str) -> None:
    loss = Finding("loss", kinds.LOSS, "loss", (0,), 1.0, 1e-14, "It is averaged.")
    kept = replace(KEPT, kind=kind)
    found = [failed("repeat", kept), failed("order", LEAK), failed("loss", loss), failed("company", LEAK)]
    (fault,) = faults(found)
    assert fault.finding is kept
    assert fault.lines[0].endswith("; order, loss, company fail with it")
    other = failed("order", LEAK, subject="padmask")  # another strategy
    assert [one.subjects for one in faults([*found, other])] == [["Tagger"], ["padmask"]]
    before = [failed("order", LEAK), failed("repeat", kept, mode="train")]  # found before the state
    assert [one.finding.kind for one in faults(before)] == [kinds.VALUE_LEAK, kind]


def test_loss_and_metric_follow_a_module_fault_or_are_faults_themselves() -> None:
    loss = Finding("loss", kinds.LOSS, "loss", (0,), 1.0, 1e-14, "It is averaged.")
    (fault,) = faults([failed("company", LEAK), failed("loss", loss)])
    assert fault.after == ["loss"]
    (fault,) = faults([failed("loss", loss)])
    assert (fault.finding, fault.after) == (loss, [])


def test_a_page_names_the_module_and_the_facts() -> None:
    shares = [[0.0, math.inf], [5.0, 0.5]]
    heats = [Heat("Tagger", "company", "eval", 2, ["lstm", "score"], ["a", "b"], shares)]
    heats.append(Heat("packed", "company", "eval", 2, ["lstm", "score"], ["a", "b"], [[0.0, 0.0], [0.0, 0.0]]))
    facts = {"lengths": [0, 1, 7], "arithmetics": ["float64", "bf16"], "seconds": 1.25}
    passed = Verdict("packed", "company", "eval", True)
    page = console_and_html.page(Report("Tagger", [failed("company", LEAK), passed], heats, facts=facts))
    summary = "Tagger, example 2, check company: where it differs: value leak through padding at lstm (LSTM)</summary>"
    assert summary in page
    assert "packed, example 2, check company: no difference</summary>" in page
    assert "lengths: 0, 1, 7 · arithmetics: float64, bf16 · seconds: 1.2<" in page


def test_json_of_a_size_that_is_not_finite() -> None:
    report = Report("Tagger", [failed("nan", replace(LEAK, size=math.inf))])
    (made,) = json.loads(as_json(report.as_dict()), parse_constant=pytest.fail)["verdicts"]
    assert made["worst"] is made["finding"]["size"] is None
    assert made["passed"] is False
