"""Any `torch.nn.Module` with examples, as a subject of the audit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runner.audit.checks.auditor import DTYPES, Arithmetic
from runner.audit.checks.compare import first_line
from runner.audit.checks.metric import Figures
from runner.audit.subjects.padding import Padding
from runner.audit.tracing.alignment import Geometry, Part, parts, reading, split
from runner.audit.tracing.observe import AdapterError, Answers, Setting
from runner.interfaces import Loss

Collate = Callable[[Sequence[Any], Padding], Any]


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
        self._readings: list[str] | None = None

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
        if self._answers:
            outputs = _listed("answers", self._answers, output, lengths)
        else:
            outputs = self._split(output, rows, setting)
        if len(outputs) != len(rows):
            raise AdapterError(f"answers gave {len(outputs)} tensors for {len(rows)} examples")
        loss = _asked("loss", self._loss, output, examples) if self._loss else None
        if isinstance(loss, Tensor):
            outputs, loss = _with_losses(outputs, loss)
        predictions = _listed("decode", self._decode, output, lengths) if self._decode else None
        return Answers(outputs, loss, predictions)

    def output(self, examples: Sequence[Any], setting: Setting) -> Any:
        """What the module returns for a batch of these."""
        given = self.arguments(examples, setting)
        return self.module(**given) if isinstance(given, Mapping) else self.module(*given)

    def arguments(self, examples: Sequence[Any], setting: Setting) -> Mapping[str, Any] | tuple[Any, ...]:
        """What `collate` gives, in the module's arithmetic and on its device.

        Raises:
            AdapterError: `collate` raises, or gives a list, which may be one argument or several.
        """
        batch = _asked("collate", self.collate, examples, Padding(setting.widen, setting.fill, self.left))
        if isinstance(batch, list):
            raise AdapterError("collate gave a list; give a tuple of arguments, a dict by name or a tensor")
        numbers = (one for one in self.module.parameters() if one.is_floating_point())
        like = next(numbers, torch.zeros(0, dtype=torch.float64))
        if isinstance(batch, Mapping):
            return {name: _like(one, like) for name, one in batch.items()}
        return tuple(_like(one, like) for one in (batch if isinstance(batch, tuple) else (batch,)))

    def check_collate(self) -> None:
        """Whether `collate` pads as it is told.

        Raises:
            AdapterError: it pads, but not to the width or not with the content of `Padding`.
        """
        order = np.argsort(self.lengths, kind="stable")
        rows = [int(order[-1]), int(order[0])]
        examples, longest = [self.examples[row] for row in rows], int(self.lengths[rows[0]])
        if longest == self.lengths[rows[1]]:
            return
        plain, wide, poisoned = (
            [one for one in _values(self.arguments(examples, setting)) if isinstance(one, Tensor)]
            for setting in (Setting(), Setting(2), Setting(1, "nan"))
        )
        padded = any(longest in one.shape for one in plain)
        if padded and [one.shape for one in plain] == [one.shape for one in wide]:
            raise AdapterError("collate does not pad to the width that it is told; use padding.stack or padding.width")
        numbers = isinstance(examples[0], Tensor) and examples[0].is_floating_point()
        if padded and numbers and not any(bool(one.isnan().any()) for one in poisoned):
            raise AdapterError("collate does not put padding.fill into the padding; use padding.stack")

    def _split(self, output: Any, rows: Sequence[int], setting: Setting) -> list[Tensor]:
        """One tensor an example: of the output's only part, or of all its parts end to end."""
        if self._readings is None:
            self._readings = self._read()
        geometry, found = self.geometry(rows, setting), parts(output)
        if len(found) != len(self._readings):
            raise AdapterError(f"the output has {len(found)} parts, before it had {len(self._readings)}; give answers=")
        split_parts = [split(part, how, geometry) for part, how in zip(found, self._readings, strict=True)]
        return [_end_to_end(one) for one in zip(*split_parts, strict=True)]

    def _read(self) -> list[str]:
        """How each part of the output is meant, from groups of other numbers and widths.

        Raises:
            AdapterError: no reading of a part fits all of them, or what belongs to an example changes its shape.
        """
        order = [int(row) for row in np.argsort(-self.lengths, kind="stable") if self.lengths[row] > 0]
        seen: list[tuple[list[Part], Geometry]] = []
        for rows, widen in ((order[:3], 1), (order[-2:], 2), (order[:1], 3)):
            with torch.no_grad():
                output = self.output([self.examples[row] for row in rows], Setting(widen))
            seen.append((parts(output), self.geometry(rows, Setting(widen))))
        if not seen[0][0] or len({len(found) for found, _ in seen}) > 1:
            raise AdapterError("the output holds no tensors, or another number of them each time; give answers=")
        return [_read_part(place, seen) for place in range(len(seen[0][0]))]

    def figures(self, metric: Callable[[], Any]) -> Figures:
        """What a fresh metric computes from batches of examples."""

        def of(batches: Sequence[Sequence[int]]) -> dict[str, Any]:
            one = metric()
            with torch.no_grad():
                for rows in batches:
                    examples = [self.examples[row] for row in rows]
                    _asked("metric.update", one.update, self.output(examples, Setting()), examples)
            found = _asked("metric.compute", one.compute)
            return dict(found) if isinstance(found, Mapping) else {"metric": found}

        return of


def _asked(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the user answers; its errors are told as its own, not as the module's."""
    try:
        return function(*arguments)
    except Exception as error:
        raise AdapterError(f"{name} raised {type(error).__name__}: {first_line(error)}") from error


def _listed(name: str, function: Callable[..., Any], *arguments: Any) -> list[Tensor]:
    return _asked(name, lambda: list(function(*arguments)))  # type: ignore[no-any-return]


def _read_part(place: int, seen: Sequence[tuple[list[Part], Geometry]]) -> str:
    """How one part is meant. The first example stands in the first and in the last run, three times as wide."""
    sighted = [(found[place], geometry) for found, geometry in seen]
    how = reading(sighted)
    if how is not None:
        (first, shape), (last, wide) = sighted[0], sighted[-1]
        if split(first, how, shape)[0].shape == split(last, how, wide)[0].shape:
            return how
    shapes = [tuple(getattr(part, "shape", ())) for part, _ in sighted]
    raise AdapterError(
        f"cannot tell which piece of part {place + 1} of the output belongs to which example (shapes {shapes}); "
        "give answers="
    )


def _end_to_end(pieces: tuple[Tensor, ...]) -> Tensor:
    """One tensor of all that belongs to an example."""
    return pieces[0] if len(pieces) == 1 else torch.cat([one.double().flatten() for one in pieces])


def _with_losses(outputs: list[Tensor], loss: Tensor) -> tuple[list[Tensor], Loss]:
    """A plain mean is a loss without a count; losses of single examples are answers of theirs, too.

    Raises:
        AdapterError: neither.
    """
    if loss.dim() == 0:
        return outputs, Loss(loss, 0)
    if loss.shape != (len(outputs),):
        raise AdapterError(
            f"loss gave a tensor of shape {tuple(loss.shape)}; give a number, one for each example, or Loss(sum, count)"
        )
    return [_end_to_end(pair) for pair in zip(outputs, loss, strict=True)], Loss(loss.sum(), len(outputs))


def _values(arguments: Mapping[str, Any] | tuple[Any, ...]) -> list[Any]:
    return list(arguments.values() if isinstance(arguments, Mapping) else arguments)


def _like(value: Any, like: Tensor) -> Any:
    """A tensor where `like` lies; numbers in its arithmetic."""
    if not isinstance(value, Tensor):
        return value
    return value.to(like) if value.is_floating_point() else value.to(like.device)
