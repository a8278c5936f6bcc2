"""Known bugs: the audit must catch each of them, name its module and its kind, and pass the fixed twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from runner.audit.api import audit_module
from runner.audit.checks import kinds
from runner.audit.checks.auditor import Arithmetic
from runner.audit.checks.verdict import AuditReport
from runner.audit.gallery import layers, sequences, training
from runner.audit.subjects.module import Collate, ExampleMetric, LossFunction
from runner.audit.subjects.padding import Padding

LENGTHS = (5, 3, 1, 7, 3, 2, 9, 5)


TokenLoss = LossFunction[training.Scores, Sized]
TokenMetric = ExampleMetric[training.Scores, Sized]


@dataclass(frozen=True)
class Bug:
    """A bug of the gallery. Factories take True for the fixed version and False for the wrong one.

    Attributes:
        name: a short description of the bug.
        make: factory of the module.
        module: the place that the audit must name (a dotted name, or `loss`, `metric`).
        kind: the kind that the audit must name.
        check: the check that shows the bug.
        mode: the mode in which it does.
        empty: the examples include one without tokens.
        left: padding comes before the tokens.
        characters: examples are words of characters, not vectors.
        loss, metric: factories of these arguments of `audit_module`.
        arithmetics: arithmetics besides float64.
    """

    name: str
    make: Callable[[bool], nn.Module]
    module: str
    kind: str
    check: str = "mixed_lengths"
    mode: str = "eval"
    empty: bool = True
    left: bool = False
    characters: bool = False
    loss: Callable[[bool], TokenLoss] | None = None
    metric: Callable[[bool], Callable[[], TokenMetric]] | None = None
    arithmetics: tuple[Arithmetic, ...] = ()

    def audit(self, fixed: bool) -> AuditReport:
        """Audit the wrong module, or its fixed twin."""
        torch.manual_seed(0)
        module = self.make(fixed)
        lengths = (*LENGTHS, 0) if self.empty else LENGTHS
        examples: Sequence[Any] = [_word(n) if self.characters else torch.randn(n, 4) for n in lengths]
        collate: Collate[Any] = _collate_characters if self.characters else _collate_vectors
        return audit_module(
            module,
            examples,
            collate,
            left_padding=self.left,
            loss=None if self.loss is None else self.loss(fixed),
            metric=None if self.metric is None else self.metric(fixed),
            arithmetics=self.arithmetics,
            name=self.name,
        )

    def named_in(self, report: AuditReport) -> tuple[str, str] | None:
        """Return the module and kind that the report names for `check`, or None if the check did not fail."""
        for verdict in report.of(self.name, self.check):
            if verdict.passed is False and verdict.mode == self.mode and verdict.finding is not None:
                return verdict.finding.module.split(" ")[0], verdict.finding.kind
        return None


def _collate_vectors(rows: Sequence[Tensor], padding: Padding) -> tuple[Tensor, Tensor]:
    return padding.stack(rows), padding.mask([len(row) for row in rows])


def _collate_characters(rows: Sequence[Sequence[Tensor]], padding: Padding) -> tuple[Tensor, Tensor]:
    """Collate words of characters into (B, T, W) ids and (B, T) word lengths."""
    longest = max((len(word) for row in rows for word in row), default=0)
    words = [torch.stack([_padded(word, padding.width(longest)) for word in row]) for row in rows if len(row)]
    blank = torch.zeros(0, padding.width(longest), dtype=torch.int64)
    filled = iter(words)
    counts = [torch.tensor([len(word) for word in row], dtype=torch.int64) for row in rows]
    neutral = Padding(padding.widen)
    return padding.stack([next(filled) if len(row) else blank for row in rows]), neutral.stack(counts)


def _padded(word: Tensor, width: int) -> Tensor:
    return torch.cat([word, word.new_zeros(width - len(word))])


def _word(length: int) -> list[Tensor]:
    return [torch.randint(1, 20, (int(torch.randint(1, 8, ())),)) for _ in range(length)]


def _net(name: str, layer: Callable[[bool], nn.Module], size: int = 6) -> Callable[[bool], nn.Module]:
    return lambda fixed: layers.Net(name, layer(fixed), size)


def _loss(fixed: bool) -> TokenLoss:
    return training.counted_loss if fixed else training.mean_loss


def _metric(fixed: bool) -> Callable[[], TokenMetric]:
    return training.TokenPerplexity if fixed else training.BatchPerplexity


def _attention(masks: Callable[[bool], layers.MaskedAttention]) -> Callable[[bool], nn.Module]:
    return _net("attention", masks)


BUGS = (
    Bug("mean over the padded width", _net("pool", layers.MeanPool), "pool", kinds.WIDTH),
    Bug("max with zeros as padding", _net("pool", lambda fixed: layers.ExtremePool(fixed, True)), "pool", kinds.WIDTH),
    Bug("min with zeros as padding", _net("pool", lambda fixed: layers.ExtremePool(fixed, False)), "pool", kinds.WIDTH),
    Bug("convolution bleed", _net("conv", layers.ConvPair), "conv.second", kinds.VALUE_LEAK),
    Bug("softmax masked after", _net("pool", layers.SoftmaxPool), "pool", kinds.VALUE_LEAK),
    Bug("causal mask only", _net("attention", layers.CausalAttention), "attention", kinds.VALUE_LEAK, left=True),
    Bug("backward RNN over padding", _net("encoder", sequences.BackwardOverPadding), "encoder.lstm", kinds.VALUE_LEAK),
    Bug("state at the padded end", _net("encoder", sequences.LastState), "encoder", kinds.VALUE_LEAK),
    Bug("CRF overwrites alpha", _net("crf", sequences.LogPartition), "crf", kinds.VALUE_LEAK),
    Bug("CRF steps into padding", _net("crf", sequences.PathScore, 1), "crf", kinds.WIDTH),
    Bug(
        "loss averaged per micro-batch",
        lambda fixed: training.Tagger(),
        "loss",
        kinds.LOSS,
        check="loss",
        empty=False,
        loss=_loss,
    ),
    Bug("batch norm over padding", _net("norm", layers.BatchNorm), "norm.norm", kinds.VALUE_LEAK, mode="train"),
    Bug("positions from the padded side", _net("positions", layers.Positions), "positions", kinds.WIDTH, left=True),
    Bug("rows sorted, labels not", _net("encoder", sequences.SortedRows), "encoder", kinds.ORDER),
    Bug("state kept between batches", _net("encoder", sequences.KeptState), "encoder.gru", kinds.STATE, check="repeat"),
    Bug(
        "one dropout mask for all rows",
        training.Dropped,
        "dropout",
        kinds.SHARED_DROPOUT,
        check="dropout",
        mode="train",
    ),
    Bug(
        "-1e9 in half precision",
        _attention(lambda fixed: layers.MaskedAttention(-torch.inf if fixed else -1e9, True)),
        "attention",
        kinds.OVERFLOW,
        check="fp16",
        arithmetics=("fp16",),
    ),
    Bug("character padding", sequences.Characters, "characters", kinds.WIDTH, characters=True),
    Bug(
        "attention NaN on empty rows",
        _attention(lambda fixed: layers.MaskedAttention(-torch.inf, fixed)),
        "attention",
        kinds.NOT_FINITE,
        check="extremes",
    ),
    Bug(
        "perplexity averaged per batch",
        lambda fixed: training.Tagger(),
        "metric",
        kinds.METRIC,
        check="metric",
        metric=_metric,
    ),
)


@dataclass(frozen=True)
class GalleryResult:
    """The result for one bug.

    Attributes:
        bug: the bug.
        named: the module and kind that the audit named; None if it missed the bug.
        twin_passed: the fixed twin passed.
    """

    bug: Bug
    named: tuple[str, str] | None
    twin_passed: bool

    @property
    def is_correct(self) -> bool:
        """True if the audit named the expected module and kind."""
        return self.named == (self.bug.module, self.bug.kind)


def run_gallery() -> list[GalleryResult]:
    """Audit every bug and its fixed twin."""
    return [GalleryResult(bug, bug.named_in(bug.audit(fixed=False)), bug.audit(fixed=True).passed) for bug in BUGS]
