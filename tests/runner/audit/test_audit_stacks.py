"""Operations between the layers of a stack: wrong ones are found and named, correct ones pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from runner.audit.checks.verdict import AuditReport
from runner.audit.config_audit import AuditOptions, audit_config
from runner.config.compose import compose_strategies
from runner.layers.dropout import LockedDropout
from runner.layers.residual import ResidualNorm
from runner.ragged.ragged import Ragged

SMALL = ("task=tag", "features.words.max_size=30", "embedding.size=6", "threads=1", "cache_dir=null")
STACK = ("encoder.layers=2", "encoder.shortcut=highway", "encoder.layer_norm=true", "encoder.locked_dropout=0.3")
ENCODERS = {"gru": ["encoder.hidden=4"], "conv": ["encoder.filters=3"]}


def audited(encoder: str, batching: str) -> AuditReport:
    torch.set_num_threads(1)
    given = (*SMALL, f"encoder={encoder}", *STACK, *ENCODERS[encoder], f"batching={batching}")
    configs, left_out = compose_strategies(given, None)
    return audit_config(configs, left_out, AuditOptions(rows=10, longest=9, arithmetics=("float32",)))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_stacks_are_batch_invariant(encoder: str) -> None:
    report = audited(encoder, "padmask,packed,timestep")
    report.raise_if_failed()
    assert all(verdict.passed for verdict in report.verdicts if verdict.check == "dropout")


def mask_of_the_batch(self: LockedDropout, x: Ragged) -> Ragged:
    """Dropout with the mask of the batch's first row for all rows."""
    if not self.training or self.dropout.p == 0.0 or x.rows.n_rows == 0:
        return x
    ones = torch.ones(x.rows.n_rows, x.values.shape[-1])
    dropped = self.dropout(ones, x.rows.single, "packed")[0] == 0.0
    return x.map(lambda values: values.masked_fill(dropped, 0.0) / (1.0 - self.dropout.p))


def norm_of_rows(self: ResidualNorm, before: Ragged, after: Ragged) -> Ragged:
    """Normalisation by mean and variance over all positions of a row, including padding."""
    values = after.pad().values
    mean, variance = values.mean(dim=(1, 2), keepdim=True), values.var(dim=(1, 2), keepdim=True)
    normed = Ragged((values - mean) / (variance + 1e-5).sqrt(), after.rows, "padded")
    return normed if after.layout == "padded" else normed.pack()


def shifted_shortcut(self: ResidualNorm, before: Ragged, after: Ragged) -> Ragged:
    """Concatenation with the previous position's input: a row's first token gets the last one of the row before."""
    x, y = before.filled(0.0), after.filled(0.0)
    return after.with_values(self.norm(self.project(x).roll(1, dims=0) + y))


@pytest.mark.parametrize(
    ("broken", "method", "wrong", "batching", "check", "named"),
    [
        (LockedDropout, "apply_to", mask_of_the_batch, "padmask", "dropout", "encoder"),
        (ResidualNorm, "forward", norm_of_rows, "padmask", "width", "encoder.joints.0 (ResidualNorm)"),
        (ResidualNorm, "forward", shifted_shortcut, "packed", "order", "encoder.joints.0 (ResidualNorm)"),
    ],
)
def test_broken_layers_are_found(
    broken: type, method: str, wrong: Callable[..., Ragged], batching: str, check: str, named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(broken, method, wrong)
    by_check = {verdict.check: verdict.finding for verdict in audited("conv", batching).failures()}
    assert by_check[check] is not None
    assert by_check[check].module.startswith(named)
