"""`audit_module` as used in other projects' tests: adapters, errors, compared quantities, restored state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.audit import AuditReport, Padding, audit_module
from runner.audit.checks import kinds
from runner.audit.report import conclusion, notes, page
from runner.common.errors import HydromelError
from runner.interfaces import Loss

LENGTHS = (4, 2, 7, 2, 1, 5, 0)


def examples(lengths: Sequence[int] = LENGTHS) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(length, 3) for length in lengths]


def collate(rows: Sequence[Tensor], padding: Padding) -> tuple[Tensor, Tensor]:
    return padding.stack(rows), padding.mask([len(row) for row in rows])


class Pool(nn.Module):
    """Mean over real tokens; `leak` adds that much of the padding."""

    def __init__(self, leak: float = 0.0) -> None:
        super().__init__()
        self.leak = leak
        self.score = nn.Linear(3, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        clean = x.masked_fill(~mask[:, :, None], self.leak)
        scores: Tensor = self.score(clean.sum(1) / mask.sum(1)[:, None].clamp(min=1))
        return scores


def findings(report: AuditReport) -> set[tuple[str, str, str]]:
    return {
        (verdict.check, verdict.finding.module.split(" ")[0], verdict.finding.kind)
        for verdict in report.failures()
        if verdict.finding is not None
    }


def test_a_correct_module_passes_every_check_in_both_modes() -> None:
    report = audit_module(Pool(), examples(), collate)
    report.raise_if_failed()
    assert report.passed
    passed = {(verdict.check, verdict.mode) for verdict in report.verdicts if verdict.passed}
    checks = (
        "repeat",
        "neighbours",
        "order",
        "duplicates",
        "mixed_lengths",
        "extremes",
        "width",
        "content",
        "huge",
        "nan",
    )
    assert passed >= {(check, mode) for check in (*checks, "float32") for mode in ("eval", "train")}
    assert (
        next(verdict for verdict in report.verdicts if verdict.check == "dropout").passed is None
    )  # the module has no dropout


@pytest.mark.parametrize("leak", [1e-9, 1e-3, 1.0])
def test_a_leak_of_any_size_is_found(leak: float) -> None:
    report = audit_module(Pool(leak), examples(), collate)
    assert ("width", "Pool", kinds.WIDTH) in findings(report)
    worst = max(verdict.finding.size for verdict in report.failures() if verdict.finding and verdict.check == "width")
    assert leak / 100 < worst < leak * 100


def test_gradients_are_compared_where_outputs_agree() -> None:
    class Detached(nn.Module):
        """Correct outputs, but a row passes on its gradient only if it is as long as the longest one."""

        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(3, 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores: Tensor = self.score(x.masked_fill(~mask[:, :, None], 0.0).sum(1))
            return torch.where(mask.all(1)[:, None], scores, scores.detach())

    report = audit_module(Detached(), examples(), collate)
    assert not report.passed
    assert {verdict.finding.quantity for verdict in report.failures() if verdict.finding} <= {
        "gradient of score.weight",
        "gradient of score.bias",
    }


def test_code_between_modules_is_attributed_to_the_calling_module() -> None:
    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 2)])

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores: Tensor = self.layers[0](x.masked_fill(~mask[:, :, None], 0.0).mean(1))
            return scores

    report = audit_module(Averaging(), examples(), collate)
    assert ("width", "Averaging", kinds.WIDTH) in findings(report)


def test_the_module_is_unchanged() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    some = examples()
    state = torch.random.get_rng_state()
    audit_module(module, some, lambda rows, padding: padding.stack(rows))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [layer.training for layer in module] == [True, True, False]
    assert module[1].p == 0.5
    assert all(weight.grad is None and weight.dtype == torch.float32 for weight in module.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_arguments_by_name_and_padding_on_the_left() -> None:
    class LastToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(3, 2)

        def forward(self, *, vectors: Tensor, mask: Tensor) -> Tensor:
            scores: Tensor = self.score(vectors[:, -1])
            return scores

    def by_name(rows: Sequence[Tensor], padding: Padding) -> dict[str, Tensor]:
        return {"vectors": padding.stack(rows), "mask": padding.mask([len(row) for row in rows])}

    some = examples((4, 2, 7, 2, 1))
    audit_module(LastToken(), some, by_name, left_padding=True).raise_if_failed()
    assert not audit_module(LastToken(), some, by_name).passed  # the last position is padding there


def test_loss_decode_and_metric() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(3, 2)

        def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return self.score(x), mask

    def losses(output: Any, rows: Sequence[Tensor]) -> Tensor:
        scores, mask = output
        return F.cross_entropy(scores[mask], torch.ones(int(mask.sum()), dtype=torch.int64), reduction="none")

    def summed(output: Any, rows: Sequence[Tensor]) -> Loss:
        terms = losses(output, rows)
        return Loss(terms.sum(), len(terms))

    def decode(output: Any, lengths: Sequence[int]) -> list[Tensor]:
        return [scores[:length].argmax(-1) for scores, length in zip(output[0], lengths, strict=True)]

    class Accuracy:
        def __init__(self, mean_of_batches: bool) -> None:
            self.mean_of_batches, self.right, self.counts = mean_of_batches, [0.0], [0]

        def update(self, output: Any, rows: Sequence[Tensor]) -> None:
            self.right.append(float(output[0][output[1]].argmax(-1).sum()))
            self.counts.append(sum(map(len, rows)))

        def compute(self) -> dict[str, float]:
            if self.mean_of_batches:
                shares = [a / n for a, n in zip(self.right, self.counts, strict=True) if n]
                return {"accuracy": sum(shares) / len(shares)}
            return {"accuracy": sum(self.right) / sum(self.counts)}

    right = audit_module(
        Tagger(), examples(), collate, loss=summed, decode=decode, metric=lambda: Accuracy(mean_of_batches=False)
    )
    right.raise_if_failed()
    assert {"loss", "metric"} <= set(right.checks())
    strict = audit_module(Tagger(), examples(), collate, nan_gradients=True)  # 0 times NaN, in the weight's gradient
    assert findings(strict) == {("nan", "score", kinds.VALUE_LEAK)}
    wrong = audit_module(
        Tagger(),
        examples(),
        collate,
        loss=lambda output, rows: losses(output, rows).sum() / max(1, sum(map(len, rows))),
        decode=lambda output, lengths: [scores[: max(lengths)].argmax(-1)[: len(scores)] for scores in output[0]],
        metric=lambda: Accuracy(mean_of_batches=True),
    )
    actual = findings(wrong)
    assert ("metric", "metric", kinds.METRIC) in actual
    assert ("loss", "loss", kinds.LOSS) in actual
    assert any(verdict.finding.quantity == "prediction" for verdict in wrong.failures() if verdict.finding)


def test_an_error_of_the_module_is_a_finding() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            if len(x) == 1 and x.shape[1] > 4:
                raise RuntimeError("no long\nsingle rows")
            scores: Tensor = self.inner(x.masked_fill(~mask[:, :, None], 0.0))
            return scores

    report = audit_module(Picky(), examples(), collate)
    failed = [verdict for verdict in report.failures() if verdict.finding]
    assert failed
    assert all(verdict.finding is not None and verdict.finding.kind == kinds.ERROR for verdict in failed)
    assert any("no long single rows" in verdict.finding.detail for verdict in failed if verdict.finding)


def test_errors_of_the_adapter() -> None:
    with pytest.raises(HydromelError, match="at least two examples, got 1"):
        audit_module(Pool(), examples((3,)), collate)
    with pytest.raises(
        HydromelError, match=r"cannot split tensor 1 of the output into examples .*shapes .*; pass split_output="
    ):
        audit_module(nn.Flatten(0), examples(), lambda rows, padding: padding.stack(rows))
    with pytest.raises(HydromelError, match="split_output returned 1 tensors for"):
        audit_module(Pool(), examples(), collate, split_output=lambda output, lengths: [output])


def test_padding_stack_and_mask() -> None:
    rows = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])]
    assert Padding().stack(rows).tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert Padding(left=True).stack(rows).tolist() == [[[0, 0], [1, 2]], [[3, 4], [5, 6]]]
    assert Padding(widen=2).stack(rows).shape == (2, 4, 2)
    assert Padding(fill="nan").stack(rows)[0, 1].isnan().all()
    assert Padding(fill="huge").stack(rows)[0, 1].tolist() == pytest.approx([1e30, 1e30])
    assert Padding().mask([1, 2]).tolist() == [[True, False], [True, True]]
    assert Padding(left=True).mask([1, 2]).tolist() == [[False, True], [True, True]]
    ids = [torch.tensor([7]), torch.tensor([8, 9])]
    assert Padding().stack(ids).tolist() == [[7, 0], [8, 9]]
    filled = Padding(fill="nan").stack(ids)  # integers have no NaN: other ids
    assert filled[0, 0] == 7
    assert int(filled[0, 1]) in (7, 8, 9)
    characters = [torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6], [7, 8, 9]])]
    assert Padding(widen=2).stack(characters).shape == (2, 4, 6)  # lengths in two dimensions


def test_a_report_as_plain_values() -> None:
    report = audit_module(Pool(1.0), examples(), collate, name="pool")
    plain = report.as_dict()
    assert plain["title"] == "pool"
    assert plain["passed"] is False
    failed = [verdict for verdict in plain["verdicts"] if verdict["passed"] is False]
    assert {verdict["check"] for verdict in failed} >= {"width", "mixed_lengths"}
    assert failed[0]["finding"]["hint"] == kinds.HINTS[failed[0]["finding"]["kind"]]


NO_KERNEL = "could not create a primitive descriptor for the LSTM forward propagation primitive"


class NoHalf(Pool):
    """A module without a kernel in half precisions, such as torch's LSTM on a processor without AVX-512."""

    def __init__(self, lacks: tuple[torch.dtype, ...], leak: float = 0.0) -> None:
        super().__init__(leak)
        self.lacks = lacks

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if x.dtype in self.lacks:
            raise RuntimeError(f"{NO_KERNEL}. Run workload with environment variable ONEDNN_VERBOSE=all")
        return super().forward(x, mask)


def test_a_missing_kernel_is_no_fault_of_the_model() -> None:
    report = audit_module(NoHalf((torch.bfloat16,)), examples(), collate, arithmetics=("float32", "bf16"))
    report.raise_if_failed()
    assert report.passed
    assert {(verdict.check, verdict.mode) for verdict in report.not_run} == {("bf16", "eval"), ("bf16", "train")}
    assert {verdict.reason for verdict in report.not_run} == {f"not run here: {NO_KERNEL}"}
    assert report.as_dict()["not_run"] == 2
    assert notes(report) == [f"2 checks not run here: {NO_KERNEL} (bf16; NoHalf; eval and train mode)"]
    assert conclusion(report) == "Passed: batch-invariant under NoHalf; 2 checks not run here."
    assert 'class="not-run"' in page(report)


def test_a_leak_is_reported_with_checks_that_were_not_run() -> None:
    report = audit_module(NoHalf((torch.bfloat16,), leak=1.0), examples(), collate, arithmetics=("bf16",))
    assert len(report.not_run) == 2
    assert not report.passed
    assert conclusion(report) == "FAILED: not batch-invariant under NoHalf."


def test_an_audit_without_any_check_does_not_pass() -> None:
    report = audit_module(NoHalf((torch.float64, torch.float32)), examples(), collate)
    assert not report.failures()
    assert not report.passed
    assert conclusion(report) == "No result: checks that decide could not be run here."
    with pytest.raises(AssertionError, match="undecided"):
        report.raise_if_failed()


class FailsOnFour(NoHalf):
    """In float64 it answers three rows, and lacks a kernel for four."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if len(x) > 3:
            raise RuntimeError(f"{NO_KERNEL}.")
        return super().forward(x, mask)


def test_an_audit_of_which_a_part_was_not_run_has_no_result() -> None:
    report = audit_module(FailsOnFour(()), examples(), collate)
    assert any(verdict.passed for verdict in report.verdicts)
    assert report.not_run
    assert not report.failures()
    assert not report.passed
