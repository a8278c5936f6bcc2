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
from runner.audit.checks.metric import MetricFunction
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
        """Return the subject with its module copied to another arithmetic; half precisions are cast, not autocast."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module).to(DTYPES[arithmetic])
        return other

    def answer(self, rows: Sequence[int], setting: Setting) -> Answers:
        examples = [self.examples[row] for row in rows]
        output = self.output(examples, setting)
        lengths = [int(self.lengths[row]) for row in rows]
        if self._answers:
            outputs = _call_for_list("answers", self._answers, output, lengths)
        else:
            outputs = self._split(output, rows, setting)
        if len(outputs) != len(rows):
            raise AdapterError(f"answers returned {len(outputs)} tensors for {len(rows)} examples; return one for each")
        loss = _call("loss", self._loss, output, examples) if self._loss else None
        if isinstance(loss, Tensor):
            outputs, loss = _with_losses(outputs, loss)
        predictions = _call_for_list("decode", self._decode, output, lengths) if self._decode else None
        return Answers(outputs, loss, predictions)

    def output(self, examples: Sequence[Any], setting: Setting) -> Any:
        """Run the module on a batch of examples."""
        arguments = self.arguments(examples, setting)
        return self.module(**arguments) if isinstance(arguments, Mapping) else self.module(*arguments)

    def arguments(self, examples: Sequence[Any], setting: Setting) -> Mapping[str, Any] | tuple[Any, ...]:
        """Collate examples into the module's arguments, in its arithmetic and on its device.

        Raises:
            AdapterError: `collate` raises, or returns a list, which may mean one argument or several.
        """
        batch = _call("collate", self.collate, examples, Padding(setting.widen, setting.fill, self.left))
        if isinstance(batch, list):
            raise AdapterError("collate returned a list; return a tuple of arguments, a dict by name or a tensor")
        floats = (parameter for parameter in self.module.parameters() if parameter.is_floating_point())
        like = next(floats, torch.zeros(0, dtype=torch.float64))
        if isinstance(batch, Mapping):
            return {name: _like(value, like) for name, value in batch.items()}
        return tuple(_like(value, like) for value in (batch if isinstance(batch, tuple) else (batch,)))

    def check_collate(self) -> None:
        """Check that `collate` pads as its `Padding` argument says.

        Raises:
            AdapterError: it pads, but not to that width or not with that content.
        """
        order = np.argsort(self.lengths, kind="stable")
        rows = [int(order[-1]), int(order[0])]
        examples, longest = [self.examples[row] for row in rows], int(self.lengths[rows[0]])
        if longest == self.lengths[rows[1]]:
            return
        plain, wide, poisoned = (
            [value for value in _values(self.arguments(examples, setting)) if isinstance(value, Tensor)]
            for setting in (Setting(), Setting(2), Setting(1, "nan"))
        )
        is_padded = any(longest in tensor.shape for tensor in plain)
        if is_padded and [tensor.shape for tensor in plain] == [tensor.shape for tensor in wide]:
            raise AdapterError("collate does not pad to the requested width; use padding.stack or padding.width")
        has_floats = isinstance(examples[0], Tensor) and examples[0].is_floating_point()
        if is_padded and has_floats and not any(bool(tensor.isnan().any()) for tensor in poisoned):
            raise AdapterError("collate does not write padding.fill into the padding; use padding.stack")

    def _split(self, output: Any, rows: Sequence[int], setting: Setting) -> list[Tensor]:
        """Split an output into one tensor per example, in which all parts of the output are concatenated."""
        if self._readings is None:
            self._readings = self._read_parts()
        geometry, tensors = self.geometry(rows, setting), parts(output)
        if len(tensors) != len(self._readings):
            raise AdapterError(
                f"the output has {len(tensors)} tensors, earlier it had {len(self._readings)}; pass answers="
            )
        split_parts = [split(part, how, geometry) for part, how in zip(tensors, self._readings, strict=True)]
        return [_concatenate(pieces) for pieces in zip(*split_parts, strict=True)]

    def _read_parts(self) -> list[str]:
        """Return the reading of each part of the output, from batches of different sizes and widths.

        Raises:
            AdapterError: no reading of a part fits all of them, or an example's share of it changes its shape.
        """
        order = [int(row) for row in np.argsort(-self.lengths, kind="stable") if self.lengths[row] > 0]
        seen: list[tuple[list[Part], Geometry]] = []
        for rows, widen in ((order[:3], 1), (order[-2:], 2), (order[:1], 3)):
            with torch.no_grad():
                output = self.output([self.examples[row] for row in rows], Setting(widen))
            seen.append((parts(output), self.geometry(rows, Setting(widen))))
        if not seen[0][0] or len({len(tensors) for tensors, _ in seen}) > 1:
            raise AdapterError("the output holds no tensors, or not always the same number of them; pass answers=")
        return [_read_part(place, seen) for place in range(len(seen[0][0]))]

    def figures(self, metric: Callable[[], Any]) -> MetricFunction:
        """Return a function that computes a new metric over batches of examples."""

        def compute(batches: Sequence[Sequence[int]]) -> dict[str, Any]:
            accumulator = metric()
            with torch.no_grad():
                for rows in batches:
                    examples = [self.examples[row] for row in rows]
                    _call("metric.update", accumulator.update, self.output(examples, Setting()), examples)
            values = _call("metric.compute", accumulator.compute)
            return dict(values) if isinstance(values, Mapping) else {"metric": values}

        return compute


def _call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the user, whose errors are reported as its own, not as the module's."""
    try:
        return function(*arguments)
    except Exception as error:
        raise AdapterError(f"{name} raised {type(error).__name__}: {first_line(error)}") from error


def _call_for_list(name: str, function: Callable[..., Any], *arguments: Any) -> list[Tensor]:
    return _call(name, lambda: list(function(*arguments)))  # type: ignore[no-any-return]


def _read_part(place: int, seen: Sequence[tuple[list[Part], Geometry]]) -> str:
    """Return the reading of one part of the output."""
    runs = [(tensors[place], geometry) for tensors, geometry in seen]
    how = reading(runs)
    if how is not None:
        # The longest example is in the first and the last run, which is three times as wide: a right reading gives it
        # the same shape in both.
        (first, geometry), (last, wide) = runs[0], runs[-1]
        if split(first, how, geometry)[0].shape == split(last, how, wide)[0].shape:
            return how
    shapes = [tuple(getattr(part, "shape", ())) for part, _ in runs]
    raise AdapterError(
        f"cannot split tensor {place + 1} of the output into examples (its shapes in three batches: {shapes}); "
        "pass answers="
    )


def _concatenate(pieces: tuple[Tensor, ...]) -> Tensor:
    """Return one tensor of all pieces of an example."""
    return pieces[0] if len(pieces) == 1 else torch.cat([piece.double().flatten() for piece in pieces])


def _with_losses(outputs: list[Tensor], loss: Tensor) -> tuple[list[Tensor], Loss]:
    """Return the outputs and the loss: a plain mean gets count 0, and losses of single examples join their outputs.

    Raises:
        AdapterError: the loss has any other shape.
    """
    if loss.dim() == 0:
        return outputs, Loss(loss, 0)
    if loss.shape != (len(outputs),):
        raise AdapterError(
            f"loss returned a tensor of shape {tuple(loss.shape)}; return a mean, one loss for each example, or "
            "Loss(sum, count)"
        )
    return [_concatenate(pair) for pair in zip(outputs, loss, strict=True)], Loss(loss.sum(), len(outputs))


def _values(arguments: Mapping[str, Any] | tuple[Any, ...]) -> list[Any]:
    return list(arguments.values() if isinstance(arguments, Mapping) else arguments)


def _like(value: Any, like: Tensor) -> Any:
    """Move a tensor to the device of `like`, and cast floats to its dtype."""
    if not isinstance(value, Tensor):
        return value
    return value.to(like) if value.is_floating_point() else value.to(like.device)
