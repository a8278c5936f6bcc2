"""The audit of any `torch.nn.Module`, from Python: `audit_module(module, examples, collate)`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runner.audit.align import Geometry, parts, reading, split
from runner.audit.compare import Alone
from runner.audit.engine import DTYPES, Arithmetic, Auditor, Mode, arithmetic_verdict, dropout_verdict, in_mode
from runner.audit.metric import Figures, metric_verdict
from runner.audit.observe import HUGE, AdapterError, Answers, Fill, Setting, seeded
from runner.audit.verdict import Report, Verdict
from runner.errors import HydromelError
from runner.task import Loss

Collate = Callable[[Sequence[Any], "Padding"], Any]


@dataclass(frozen=True)
class Padding:
    """How much padding a batch is to have, and what is to stand in it. `stack` does both for most collate functions.

    Attributes:
        widen: padded sizes as a multiple of what the longest example needs.
        fill: `neutral` (zeros), `other` finite content, `huge` (1e30) or `nan`.
        left: padding goes before the tokens.
    """

    widen: int = 1
    fill: Fill = "neutral"
    left: bool = False

    def width(self, longest: int) -> int:
        """The padded size for a longest of `longest`."""
        return max(1, longest) * self.widen

    def stack(self, rows: Sequence[Tensor]) -> Tensor:
        """Rows of (length, *) -> (B, width, *); every dimension in which they differ is padded.

        Floats get `fill`; integers, which have no NaN, get values of the rows themselves wherever it is not neutral.
        """
        dims = max(row.dim() for row in rows)
        sizes = [max(row.shape[dim] for row in rows) for dim in range(dims)]
        uneven = [dim == 0 or len({row.shape[dim] for row in rows}) > 1 or self._inner(rows) for dim in range(dims)]
        shape = [self.width(size) if wide else size for size, wide in zip(sizes, uneven, strict=True)]
        stacked = self._filled(rows, (len(rows), *shape))
        for place, row in enumerate(rows):
            first = slice(shape[0] - len(row), None) if self.left else slice(0, len(row))
            stacked[(place, first, *(slice(0, size) for size in row.shape[1:]))] = row
        return stacked

    def mask(self, lengths: Sequence[int]) -> Tensor:
        """(B, width) true at real tokens."""
        place = torch.arange(self.width(max(lengths, default=0)))
        count = torch.tensor(list(lengths))[:, None]
        return place >= len(place) - count if self.left else place < count

    def _inner(self, rows: Sequence[Tensor]) -> bool:
        """Whether trailing dimensions are lengths too (characters of words): integers of two dimensions."""
        return rows[0].dim() == 2 and not rows[0].is_floating_point()

    def _filled(self, rows: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
        dtype = rows[0].dtype
        if self.fill == "neutral":
            return torch.zeros(shape, dtype=dtype)
        if not dtype.is_floating_point:
            pool = torch.cat([row.flatten() for row in rows])
            if not len(pool):
                return torch.zeros(shape, dtype=dtype)
            generator = torch.Generator().manual_seed(len(pool))
            return pool[torch.randint(len(pool), shape, generator=generator)]
        value = {"other": 1.25, "huge": HUGE, "nan": float("nan")}[self.fill]
        return torch.full(shape, value, dtype=dtype)


class ModuleSubject:
    """A module with its examples; see `audit_module`."""

    has_padding = True

    def __init__(
        self,
        module: nn.Module,
        examples: Sequence[Any],
        collate: Collate,
        *,
        lengths: Sequence[int],
        left: bool,
        answers: Callable[[Any, Sequence[int]], Sequence[Tensor]] | None,
        loss: Callable[[Any, Sequence[Any]], Tensor | Loss] | None,
        decode: Callable[[Any, Sequence[int]], Sequence[Tensor]] | None,
        name: str,
    ) -> None:
        self.module, self.examples, self.collate, self.name = module, list(examples), collate, name
        self.lengths = np.array(lengths, dtype=np.int64)
        self.left, self._answers, self._loss, self._decode = left, answers, loss, decode
        self._reading: str | None = None

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        lengths = tuple(int(self.lengths[row]) for row in rows)
        return Geometry(lengths, Padding(setting.widen).width(max(lengths, default=0)), self.left)

    def cut(self, rows: Sequence[int]) -> list[Sequence[int]]:
        return [rows]

    def cast(self, arithmetic: Arithmetic) -> ModuleSubject:
        """The same with a copy of the module in another arithmetic; half precisions are cast, not autocast."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module).to(DTYPES[arithmetic])
        return other

    def answer(self, rows: Sequence[int], setting: Setting) -> Answers:
        examples = [self.examples[row] for row in rows]
        output = self.output(examples, setting)
        lengths = [int(self.lengths[row]) for row in rows]
        outputs = list(self._answers(output, lengths)) if self._answers else self._split(output, rows, setting)
        if len(outputs) != len(rows):
            raise AdapterError(f"answers gave {len(outputs)} tensors for {len(rows)} examples")
        found = self._loss(output, examples) if self._loss else None
        loss = Loss(found, 0) if isinstance(found, Tensor) else found
        return Answers(outputs, loss, list(self._decode(output, lengths)) if self._decode else None)

    def output(self, examples: Sequence[Any], setting: Setting) -> Any:
        """What the module returns for a batch of these."""
        batch = self.collate(examples, Padding(setting.widen, setting.fill, self.left))
        numbers = (one for one in self.module.parameters() if one.is_floating_point())
        like = next(numbers, torch.zeros(0, dtype=torch.float64))
        if isinstance(batch, Mapping):
            return self.module(**{name: _like(one, like) for name, one in batch.items()})
        return self.module(*(_like(one, like) for one in (batch if isinstance(batch, tuple) else (batch,))))

    def _split(self, output: Any, rows: Sequence[int], setting: Setting) -> list[Tensor]:
        """One tensor an example, of the first part of the output."""
        if self._reading is None:
            self._reading = self._read()
        found = parts(output)
        return split(found[0], self._reading, self.geometry(rows, setting))

    def _read(self) -> str:
        """How the output is meant, from groups of other numbers and widths.

        Raises:
            AdapterError: no reading fits all of them.
        """
        order = [int(row) for row in np.argsort(-self.lengths, kind="stable") if self.lengths[row] > 0]
        sighted = []
        for rows, widen in ((order[:3], 1), (order[-2:], 2), (order[:1], 3)):
            setting = Setting(widen)
            with torch.no_grad():
                found = parts(self.output([self.examples[row] for row in rows], setting))
            if not found:
                break
            sighted.append((found[0], self.geometry(rows, setting)))
        how = reading(sighted) if sighted else None
        if how is None:
            shapes = [tuple(getattr(part, "shape", ())) for part, _ in sighted]
            raise AdapterError(
                f"cannot tell which part of the output belongs to which example (shapes {shapes}); give answers="
            )
        return how

    def figures(self, metric: Callable[[], Any]) -> Figures:
        """What a fresh metric computes from batches of examples."""

        def of(batches: Sequence[Sequence[int]]) -> dict[str, Any]:
            one = metric()
            with torch.no_grad():
                for rows in batches:
                    examples = [self.examples[row] for row in rows]
                    one.update(self.output(examples, Setting()), examples)
            return dict(one.compute())

        return of


def audit_module(
    module: nn.Module,
    examples: Sequence[Any],
    collate: Collate,
    *,
    lengths: Callable[[Any], int] = len,
    left_padding: bool = False,
    answers: Callable[[Any, Sequence[int]], Sequence[Tensor]] | None = None,
    loss: Callable[[Any, Sequence[Any]], Tensor | Loss] | None = None,
    decode: Callable[[Any, Sequence[int]], Sequence[Tensor]] | None = None,
    metric: Callable[[], Any] | None = None,
    modes: Sequence[Mode] = ("eval", "train"),
    arithmetics: Sequence[Arithmetic] = ("float32",),
    nan_gradients: bool = False,
    name: str | None = None,
    seed: int = 1,
) -> Report:
    """Does what a module says about an example depend on what stands beside it?

    Args:
        module: audited as a float64 copy; it is left as it was.
        examples: at least two, of different lengths; some equally long ones, and one of no token if it takes such.
        collate: examples, `Padding` -> the module's arguments: a tensor, a tuple of them, or a dict by name.
            It must pad as `Padding` says; `padding.stack(rows)` and `padding.mask(lengths)` do.
        lengths: tokens of an example.
        left_padding: padding stands before the tokens.
        answers: the module's output and the lengths -> one tensor an example, real positions only. Without it, the
            first tensor of the output is read by its shape: (B, T, *), (T, B, *), (B, C, T), (N, *), (B, *), ...
        loss: output, examples -> `Loss(sum, count)`, or a plain mean (then cutting an update must not change it).
        decode: output, lengths -> one tensor of predictions an example.
        metric: makes an object with `update(output, examples)` and `compute() -> dict`; figures must not depend on
            how the examples are cut into batches.
        modes: torch's own modules change kernels between them.
        arithmetics: besides float64: float32, bf16, fp16. Their tolerance is what the examples alone lose in them.
        nan_gradients: gradients too must be numbers where padding holds NaN. They are not in most right modules: the
            gradient of a weight is 0 times the NaN that came in. A module that fills padding before each weight passes.
        seed: of the groups.

    Returns:
        A report; `report.raise_if_failed()` is for tests, `report.passed`, `report.failures()` for the rest.

    Raises:
        HydromelError: fewer than two examples, or an output that cannot be told apart by example.
    """
    if len(examples) < 2:
        raise HydromelError(f"an audit needs at least two examples, got {len(examples)}")
    title = name or type(module).__name__
    subject = ModuleSubject(
        module,
        examples,
        collate,
        lengths=[lengths(one) for one in examples],
        left=left_padding,
        answers=answers,
        loss=loss,
        decode=decode,
        name=title,
    )
    exact = subject.cast("float64")
    report = Report(title)
    with seeded(seed):  # dropout draws in train mode, though it drops nothing
        for mode in modes:
            report.verdicts += _in_mode(subject, exact, mode, arithmetics, seed, nan_gradients)
        if metric is not None:
            with in_mode(exact.module, "eval"):
                report.verdicts.append(metric_verdict(title, exact.figures(metric), range(len(examples))))
        exact.module.train()
        report.verdicts.append(dropout_verdict(exact, int(np.argmax(exact.lengths))))
    return report


def _in_mode(
    subject: ModuleSubject,
    exact: ModuleSubject,
    mode: Mode,
    arithmetics: Sequence[Arithmetic],
    seed: int,
    nan_gradients: bool,
) -> Iterator[Verdict]:
    """All checks in float64, and the coarser arithmetics against it."""
    with in_mode(exact.module, mode):
        alone = Alone(exact, torch.float64)
        yield from Auditor(exact, mode, alone, seed, nan_gradients).verdicts()
        for arithmetic in arithmetics:
            with in_mode((coarse := subject.cast(arithmetic)).module, mode):
                there = Alone(coarse, DTYPES[arithmetic], exact=alone)
                yield arithmetic_verdict(coarse, there, arithmetic, mode, seed)


def _like(value: Any, like: Tensor) -> Any:
    """A tensor where `like` lies; numbers in its arithmetic."""
    if not isinstance(value, Tensor):
        return value
    return value.to(like) if value.is_floating_point() else value.to(like.device)
