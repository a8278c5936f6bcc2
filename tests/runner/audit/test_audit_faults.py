"""Failed verdicts grouped by fault, the same on the console, in a page and in a test."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from runner.audit.checks import kinds
from runner.audit.checks.verdict import AuditFacts, AuditReport, Finding, HeatMap, Verdict, faults
from runner.audit.report import page, print_report
from runner.common.files import to_json

LEAK = Finding("lstm (LSTM)", kinds.VALUE_LEAK, "output", (0, 2), 0.5, 1e-14, "It changes with the padding.")
KEPT = Finding("gru (GRU)", kinds.STATE, "output", (0, 1), 0.25, 1e-14, "It remembers.")


def failed(check: str, finding: Finding, subject: str = "Tagger", mode: str = "eval") -> Verdict:
    share = math.inf if finding.allowed == 0 else finding.size / finding.allowed
    return Verdict(subject, check, mode, False, share, finding)


def test_the_test_message_equals_the_console_output(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [failed(check, LEAK, mode=mode) for mode in ("eval", "train") for check in ("mixed_lengths", "nan")]
    report = AuditReport("Tagger", verdicts)
    with pytest.raises(AssertionError) as caught:
        report.raise_if_failed()
    first, *lines = str(caught.value).splitlines()
    assert first == "Tagger: not batch-invariant"
    assert lines == [
        "Tagger: value leak through padding at lstm (LSTM): output differs by 0.5, rounding explains at most 1e-14",
        "  Seen by mixed_lengths, nan in eval and train mode, in examples 0, 2.",
        "  It changes with the padding.",
        f"  How to fix it: {kinds.HINTS[kinds.VALUE_LEAK]}",
    ]
    print_report(report)
    assert "\n".join(lines) in capsys.readouterr().out
    AuditReport("Tagger", [Verdict("Tagger", "mixed_lengths", "eval", True)]).raise_if_failed()


def test_a_faults_size_is_the_largest_finite_one() -> None:
    lost = replace(LEAK, size=math.inf, detail="It is NaN.")
    small = replace(LEAK, size=0.1, detail="It is small.")
    results = [failed("mixed_lengths", small), failed("huge", LEAK), failed("nan", lost)]
    (fault,) = faults(results)
    assert fault.finding is LEAK
    assert fault.checks == ["mixed_lengths", "huge", "nan"]
    (fault,) = faults(results[2:])
    assert fault.headline.endswith("output is NaN or infinite")
    assert fault.details[0].endswith("in examples 0, 2.")
    (fault,) = faults([failed("extremes", replace(lost, quantity="error"))])
    assert fault.headline.endswith("at lstm (LSTM): the module raises an error")


@pytest.mark.parametrize("kind", [kinds.STATE, kinds.RANDOM])
def test_failures_after_kept_state_are_one_fault(kind: str) -> None:
    loss = Finding("loss", kinds.LOSS, "loss", (0,), 1.0, 1e-14, "It is averaged.")
    kept = replace(KEPT, kind=kind)
    results = [failed("repeat", kept), failed("order", LEAK), failed("loss", loss), failed("mixed_lengths", LEAK)]
    (fault,) = faults(results)
    assert fault.finding is kept
    assert fault.details[0].endswith(" Also fails, perhaps for the same reason: order, loss, mixed_lengths.")
    other = failed("order", LEAK, subject="padmask")  # another strategy
    assert [fault.subjects for fault in faults([*results, other])] == [["Tagger"], ["padmask"]]
    before = [failed("order", LEAK), failed("repeat", kept, mode="train")]  # found before the state
    assert [fault.finding.kind for fault in faults(before)] == [kinds.VALUE_LEAK, kind]


def test_loss_and_metric_follow_a_module_fault_or_are_faults_themselves() -> None:
    loss = Finding("loss", kinds.LOSS, "loss", (0,), 1.0, 1e-14, "It is averaged.")
    (fault,) = faults([failed("mixed_lengths", LEAK), failed("loss", loss)])
    assert fault.after == ["loss"]
    (fault,) = faults([failed("loss", loss)])
    assert (fault.finding, fault.after) == (loss, [])


def test_a_page_names_the_module_and_the_facts() -> None:
    shares = [[0.0, math.inf], [5.0, 0.5]]
    heats = [HeatMap("Tagger", "mixed_lengths", "eval", 2, ["lstm", "score"], ["a", "b"], shares)]
    heats.append(HeatMap("packed", "mixed_lengths", "eval", 2, ["lstm", "score"], ["a", "b"], [[0.0, 0.0], [0.0, 0.0]]))
    facts = AuditFacts(
        examples=3,
        lengths=[0, 1, 7],
        parameters=9,
        weights="fresh",
        content="the corpus",
        arithmetics=["float64", "bf16"],
        left_out={},
        torch="2",
        device="cpu",
        seconds=1.25,
        precision_note="",
    )
    passed = Verdict("packed", "mixed_lengths", "eval", True)
    html = page(AuditReport("Tagger", [failed("mixed_lengths", LEAK), passed], heats, facts=facts))
    summary = (
        "Tagger, example 2, check mixed_lengths: where it differs: value leak through padding at lstm (LSTM)</summary>"
    )
    assert summary in html
    assert "packed, example 2, check mixed_lengths: no difference</summary>" in html
    assert "lengths: 0, 1, 7 · parameters: 9" in html
    assert "arithmetics: float64, bf16 · torch: 2 · device: cpu · seconds: 1.2 ·" in html


def test_json_of_a_size_that_is_not_finite() -> None:
    report = AuditReport("Tagger", [failed("nan", replace(LEAK, size=math.inf))])
    (plain,) = json.loads(to_json(report.as_dict()), parse_constant=pytest.fail)["verdicts"]
    assert plain["worst"] is plain["finding"]["size"] is None
    assert plain["passed"] is False
