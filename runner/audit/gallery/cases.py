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
from runner.audit.gallery import layers, sequences
from runner.audit.subjects.module import Collate, ExampleMetric, LossFunction, Padding
from runner.terminal.progress import track
from runner.terminal.rich_tables import PlainConsole, plain_table

LENGTHS = (5, 3, 1, 7, 3, 2, 9, 5)
TokenLoss = LossFunction[layers.Scores, Sized]
TokenMetric = Callable[[], ExampleMetric[layers.Scores, Sized]]


@dataclass(frozen=True)
class Bug:
    """A bug of the gallery; `make` takes True for the fixed version and False for the wrong one."""

    name: str
    make: Callable[[bool], nn.Module]  # factory of the module
    module: str  # the place that the audit must name: a dotted name, or `loss`, `metric`
    kind: str  # the kind that the audit must name
    check: str = "mixed_lengths"  # the check that shows the bug
    mode: str = "eval"  # the mode in which it does
    empty: bool = True  # the examples include one without tokens
    left: bool = False  # padding comes before the tokens
    characters: bool = False  # examples are words of characters, not vectors
    loss: tuple[TokenLoss, TokenLoss] | None = None  # the wrong loss and the fixed one
    metric: tuple[TokenMetric, TokenMetric] | None = None
    arithmetics: tuple[Arithmetic, ...] = ()
    causal: bool = False  # the module is meant to predict the next token

    def audit(self, fixed: bool) -> AuditReport:
        """Audit the wrong module, or its fixed twin."""
        torch.manual_seed(0)
        module = self.make(fixed)
        lengths = (*LENGTHS, 0) if self.empty else LENGTHS
        examples: Sequence[Any] = [_words(n) if self.characters else torch.randn(n, 4) for n in lengths]
        collate: Collate[Any] = _collate_characters if self.characters else _collate_vectors
        return audit_module(
            module,
            examples,
            collate,
            left_padding=self.left,
            loss=self.loss and self.loss[fixed],
            metric=self.metric and self.metric[fixed],
            arithmetics=self.arithmetics,
            causal=self.causal,
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
    width = padding.width(max((len(word) for row in rows for word in row), default=0))
    words = [torch.zeros(len(row), width, dtype=torch.int64) for row in rows]
    for padded, row in zip(words, rows, strict=True):
        for place, word in enumerate(row):
            padded[place, : len(word)] = word
    counts = [torch.tensor([len(word) for word in row], dtype=torch.int64) for row in rows]
    return padding.stack(words), Padding(padding.widen).stack(counts)


def _words(length: int) -> list[Tensor]:
    return [torch.randint(1, 20, (int(torch.randint(1, 8, ())),)) for _ in range(length)]


def _net(name: str, layer: Callable[[bool], nn.Module], size: int = 6) -> Callable[[bool], nn.Module]:
    return lambda fixed: layers.Net(name, layer(fixed), size)


_HALF = _net("attention", lambda fixed: layers.MaskedAttention(-torch.inf if fixed else -1e9, True))
_EMPTY = _net("attention", lambda fixed: layers.MaskedAttention(-torch.inf, fixed))
BUGS = (
    Bug("mean over the padded width", _net("pool", layers.MeanPool), "pool", kinds.WIDTH),
    Bug("max with zeros as padding", _net("pool", lambda fixed: layers.ExtremePool(fixed, True)), "pool", kinds.WIDTH),
    Bug("min with zeros as padding", _net("pool", lambda fixed: layers.ExtremePool(fixed, False)), "pool", kinds.WIDTH),
    Bug("convolution bleed", _net("conv", layers.ConvPair), "conv.second", kinds.VALUE_LEAK),
    Bug("softmax masked after", _net("pool", layers.SoftmaxPool), "pool", kinds.VALUE_LEAK),
    Bug("causal mask only", _net("attention", layers.CausalAttention), "attention", kinds.VALUE_LEAK, left=True),
    Bug(
        "rows flattened into one", _net("attention", layers.FlatAttention), "attention", kinds.NEIGHBOURS, "neighbours"
    ),
    Bug("backward RNN over padding", _net("encoder", sequences.BackwardOverPadding), "encoder.lstm", kinds.VALUE_LEAK),
    Bug("state at the padded end", _net("encoder", sequences.LastState), "encoder", kinds.VALUE_LEAK),
    Bug("CRF overwrites alpha", _net("crf", sequences.LogPartition), "crf", kinds.VALUE_LEAK),
    Bug("CRF steps into padding", _net("crf", sequences.PathScore, 1), "crf", kinds.WIDTH),
    Bug("loss averaged per micro-batch", layers.Tagger, "loss", kinds.LOSS, "loss", empty=False, loss=layers.LOSSES),
    Bug("batch norm over padding", _net("norm", layers.BatchNorm), "norm.norm", kinds.VALUE_LEAK, mode="train"),
    Bug("positions from the padded side", _net("positions", layers.Positions), "positions", kinds.WIDTH, left=True),
    Bug("rows sorted, labels not", _net("encoder", sequences.SortedRows), "encoder", kinds.ORDER),
    Bug("state kept between batches", _net("encoder", sequences.KeptState), "encoder.gru", kinds.STATE, check="repeat"),
    Bug(
        "one dropout mask for all rows",
        _net("dropout", layers.LockedDropout),
        "dropout",
        kinds.SHARED_DROPOUT,
        "dropout",
        "train",
    ),
    Bug("-1e9 in half precision", _HALF, "attention", kinds.OVERFLOW, "fp16", arithmetics=("fp16",)),
    Bug("character padding", sequences.Characters, "characters", kinds.WIDTH, characters=True),
    Bug("attention NaN on empty rows", _EMPTY, "attention", kinds.NOT_FINITE, "extremes"),
    Bug(
        "convolution over the next token",
        _net("conv", layers.CausalConv),
        "conv.conv",
        kinds.FUTURE,
        "causality",
        causal=True,
    ),
    Bug("perplexity averaged per batch", layers.Tagger, "metric", kinds.METRIC, "metric", metric=layers.METRICS),
)


@dataclass(frozen=True)
class GalleryResult:
    """The module and kind that the audit named for a bug (None if it missed it), and whether its fixed twin passed."""

    bug: Bug
    named: tuple[str, str] | None
    twin_passed: bool

    @property
    def is_correct(self) -> bool:
        """True if the audit named the expected module and kind."""
        return self.named == (self.bug.module, self.bug.kind)

    def as_dict(self) -> dict[str, object]:
        """Return plain values, as `--json` writes them."""
        module, kind = self.named or (None, None)
        found = {"bug": self.bug.name, "caught": self.named is not None, "module": module, "kind": kind}
        expected = [self.bug.module, self.bug.kind]
        return {**found, "expected": expected, "named": self.is_correct, "twin_passes": self.twin_passed}


def run_gallery() -> list[GalleryResult]:
    """Audit every bug and its fixed twin."""
    return [
        GalleryResult(bug, bug.named_in(bug.audit(fixed=False)), bug.audit(fixed=True).passed)
        for bug in track(BUGS, "auditing known bugs", len(BUGS))
    ]


def print_results(results: Sequence[GalleryResult]) -> None:
    """Print the module and kind that the audit named for each bug, and the totals."""
    table = plain_table("bug", "caught", "named module", "named kind", "as expected", "fixed version")
    for result in results:
        caught, correct = ("yes" if right else "NO" for right in (result.named, result.is_correct))
        twin = "passes" if result.twin_passed else "FAILS"
        table.add_row(result.bug.name, caught, *(result.named or ("-", "-")), correct, twin)
    console = PlainConsole()
    console.print(table)
    n_caught, n_correct = sum(bool(result.named) for result in results), sum(result.is_correct for result in results)
    n_passed = sum(result.twin_passed for result in results)
    console.print(
        f"{n_caught} of {len(results)} bugs caught, {n_correct} named correctly; {n_passed} fixed versions pass"
    )
