"""Cases from reviews: outputs of several parts, random outputs, wrong adapters, zeros, float32 inside, ..."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.audit import AuditReport, Padding, audit_module
from runner.audit.checks import kinds
from runner.common.errors import HydromelError

SIZE = 4


def rows() -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randn(length, SIZE) for length in (4, 2, 6, 2, 1, 5)]


def collate(some: Sequence[Tensor], padding: Padding) -> tuple[Tensor, Tensor]:
    return padding.stack(some), padding.mask([len(row) for row in some])


class Scores(nn.Module):
    """A correct module; `then` computes the output from the scores (B, T, 3) and the mask."""

    def __init__(self, then: Callable[[Tensor, Tensor], Any] = lambda y, mask: y) -> None:
        super().__init__()
        self.score = nn.Linear(SIZE, 3)
        self.then = then

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.then(self.score(x), mask)


def kinds_of(report: AuditReport) -> list[str]:
    return [verdict.finding.kind for verdict in report.failures() if verdict.finding]


@pytest.mark.parametrize(
    "then",
    [
        lambda y, mask: (y, y.mean(1)),
        lambda y, mask: {"scores": y, "pooled": y.mean(1)},
        lambda y, mask: {"mask": mask, "scores": y - y.mean(0)},
    ],
)
def test_every_part_of_the_output_is_audited(then: Callable[[Tensor, Tensor], Any]) -> None:
    assert not audit_module(Scores(then), rows(), collate).passed
    audit_module(Scores(lambda y, mask: (y, mask)), rows(), collate).raise_if_failed()


def test_losses_of_single_examples_are_compared() -> None:
    def per_row(output: Tensor, some: Sequence[Tensor]) -> Tensor:
        lengths = torch.tensor([len(row) for row in some])
        mask = torch.arange(output.shape[1]) < lengths[:, None]
        return output.pow(2).sum(2).masked_fill(~mask, 0.0).sum(1)

    audit_module(Scores(), rows(), collate, loss=per_row).raise_if_failed()
    padded = audit_module(Scores(), rows(), collate, loss=lambda output, some: output.pow(2).sum((1, 2)))
    assert not padded.passed
    with pytest.raises(HydromelError, match=r"loss returned a tensor of shape \(\d, 3\)"):
        audit_module(Scores(), rows(), collate, loss=lambda output, some: output.sum(1))


@pytest.mark.parametrize("figure", [torch.tensor, float, lambda value: torch.tensor([value])])
def test_figures_of_any_type_are_compared(figure: Callable[[float], Any]) -> None:
    class Mean:
        def __init__(self) -> None:
            self.means: list[float] = []

        def update(self, output: Tensor, some: Sequence[Tensor]) -> None:
            cut = [row[: len(example)] for row, example in zip(output, some, strict=True)]
            self.means.append(float(torch.cat(cut).mean()))

        def compute(self) -> dict[str, Any]:
            return {"mean": figure(sum(self.means) / len(self.means))}

    assert kinds.METRIC in kinds_of(audit_module(Scores(), rows(), collate, metric=Mean))


class Nothing:
    def update(self, output: Any, some: Any) -> None:
        pass

    def compute(self) -> dict[str, str]:
        return {"name": "text"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"modes": ()}, r"modes=\(\); pass a tuple of eval, train"),
        ({"modes": "eval"}, "modes='eval'; pass a tuple"),
        ({"modes": ("evaluate",)}, "pass a tuple of eval, train"),
        ({"arithmetics": ("float16",)}, "pass a tuple of float64, float32, bf16, fp16"),
        ({"arithmetics": "float32"}, "arithmetics='float32'"),
        ({"metric": Nothing}, r"metric.compute\(\) returned no number"),
        ({"metric": Nothing()}, "metric"),
        ({"loss": lambda output, some: 1 / 0}, "loss raised ZeroDivisionError"),
        ({"split_output": lambda output, lengths: 5}, "split_output raised TypeError"),
        ({"decode": lambda output, lengths: output.nope}, "decode raised AttributeError"),
    ],
)
def test_wrong_arguments_are_errors_of_one_line(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(HydromelError, match=expected):
        audit_module(Scores(), rows(), collate, **options)


def test_a_collate_function_that_ignores_padding_is_an_error() -> None:
    def own_width(some: Sequence[Tensor], padding: Padding) -> tuple[Tensor, Tensor]:
        return Padding(1, padding.fill).stack(some), Padding().mask([len(row) for row in some])

    def own_content(some: Sequence[Tensor], padding: Padding) -> tuple[Tensor, Tensor]:
        return Padding(padding.widen).stack(some), padding.mask([len(row) for row in some])

    for wrong, expected in (
        (own_width, "does not pad to the requested width"),
        (own_content, "does not write padding.fill"),
    ):
        with pytest.raises(HydromelError, match=expected):
            audit_module(Scores(), rows(), wrong)
    with pytest.raises(HydromelError, match="collate returned a list"):
        audit_module(Scores(), rows(), lambda some, padding: list(collate(some, padding)))
    with pytest.raises(HydromelError, match="collate raised TypeError"):
        audit_module(Scores(), rows(), lambda some: some)  # type: ignore[arg-type, misc]


def test_a_function_is_no_module() -> None:
    with pytest.raises(HydromelError, match=r"module is a function; pass a torch\.nn\.Module"):
        audit_module(lambda x, mask: x, rows(), collate)  # type: ignore[arg-type]


def test_outputs_that_are_all_zero() -> None:
    zero = Scores()
    nn.init.zeros_(zero.score.weight)
    nn.init.zeros_(zero.score.bias)
    audit_module(zero, rows(), collate).raise_if_failed()
    assert kinds.NEIGHBOURS in kinds_of(audit_module(Scores(lambda y, mask: y - y.mean(0)), rows(), collate))


def test_float32_inside_is_measured_by_float32() -> None:
    def softened(y: Tensor, mask: Tensor) -> Tensor:
        weights = y.masked_fill(~mask[:, :, None], -torch.inf).softmax(1, dtype=torch.float32).to(y.dtype)
        return weights.masked_fill(~mask[:, :, None], 0.0).sum(1)

    audit_module(Scores(softened), rows(), collate).raise_if_failed()
    leak = audit_module(Scores(lambda y, mask: softened(y, mask) + 1e-3 * y.mean(1)), rows(), collate)
    assert not leak.passed


def test_random_outputs_are_reported() -> None:
    report = audit_module(Scores(lambda y, mask: y + torch.randn_like(y)), rows(), collate)
    assert set(kinds_of(report)) == {kinds.RANDOM}

    class Dropping(Scores):
        drop_rate = 0.0

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return F.dropout(self.score(x), self.drop_rate, self.training)

    module = Dropping()
    module.drop_rate = 0.5  # an attribute of the module itself, set to 0 because of its name
    audit_module(module, rows(), collate).raise_if_failed()


def test_state_in_lists_and_by_batch_size_is_found() -> None:
    class Keeps(Scores):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[int, Tensor] = {}

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            offset = self.seen.setdefault(len(x), x.detach()[:, :1].nan_to_num().clamp(-1, 1).mean())
            scores: Tensor = self.score(x) + offset
            return scores

    report = audit_module(Keeps(), rows(), collate)
    assert ("repeat", kinds.STATE) in [
        (verdict.check, verdict.finding.kind) for verdict in report.failures() if verdict.finding
    ]


def test_padding_is_not_blamed_without_padding() -> None:
    attention = nn.MultiheadAttention(SIZE, 2)  # without batch_first

    class Forgotten(Scores):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor, mask: Tensor) -> Any:
            return self.attention(x, x, x, need_weights=False)[0]

    report = audit_module(Forgotten(), rows(), collate)
    actual = {verdict.check: verdict.finding.kind for verdict in report.failures() if verdict.finding}
    assert actual["neighbours"] == kinds.NEIGHBOURS


def test_padding_recognised_by_its_id() -> None:
    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 3)

        def forward(self, ids: Tensor) -> Tensor:
            mask = ids != 0
            return self.table(ids).masked_fill(~mask[:, :, None], 0.0).sum(1) / mask.sum(1)[:, None].clamp(min=1)

    ids = [torch.randint(1, 20, (length,)) for length in (4, 2, 6, 2, 1)]
    audit_module(Known(), ids, lambda some, padding: padding.stack(some, pad=0)).raise_if_failed()
    assert not audit_module(Known(), ids, lambda some, padding: padding.stack(some)).passed
