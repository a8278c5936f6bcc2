"""Any `torch.nn.Module` with examples, as a subject of the audit, and `Padding`, which its `collate` applies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from runner.audit.checks.auditor import Arithmetic
from runner.audit.checks.causality import Cut
from runner.audit.checks.compare import first_line
from runner.audit.tracing.alignment import Geometry, Part, parts, reading, split
from runner.audit.tracing.observe import HUGE, AdapterError, Fill, RunOutput, Setting
from runner.common.arrays import BoolArray, IntArray
from runner.common.dtypes import DTYPES
from runner.interfaces import Loss


@dataclass(frozen=True)
class Padding:
    """The required amount and content of a batch's padding; `stack` applies both in most collate functions."""

    widen: int = 1  # padded sizes, as a multiple of what the longest example needs
    fill: Fill = "neutral"  # content of the padding: `neutral` (zeros), `other` finite values, `huge` (1e30) or `nan`
    left: bool = False  # padding goes before the tokens

    def width(self, longest: int) -> int:
        """Return the padded size for a longest example of `longest` tokens."""
        return max(1, longest) * self.widen

    def stack(self, rows: Sequence[Tensor], pad: int | None = None) -> Tensor:
        """Stack rows of (length, *) to (B, width, *), padding every dimension in which they differ.

        The padding of floats holds `fill`. Integers cannot be NaN: unless `fill` is neutral, their padding holds values
        of the rows themselves.

        Args:
            rows: one tensor for each example.
            pad: constant content of the padding, for a module that recognises padding by this value.
        """
        dims = max(row.dim() for row in rows)
        sizes = [max(row.shape[dim] for row in rows) for dim in range(dims)]
        # trailing dimensions of integers of two dimensions are lengths too: characters of words
        inner = rows[0].dim() == 2 and not rows[0].is_floating_point()
        uneven = [dim == 0 or len({row.shape[dim] for row in rows}) > 1 or inner for dim in range(dims)]
        shape = [self.width(size) if wide else size for size, wide in zip(sizes, uneven, strict=True)]
        stacked = self._filled(rows, (len(rows), *shape)) if pad is None else rows[0].new_full((len(rows), *shape), pad)
        for place, row in enumerate(rows):
            first = slice(shape[0] - len(row), None) if self.left else slice(0, len(row))
            stacked[(place, first, *(slice(0, size) for size in row.shape[1:]))] = row
        return stacked

    def mask(self, lengths: Sequence[int]) -> Tensor:
        """Return (B, width), true at real tokens."""
        place = torch.arange(self.width(max(lengths, default=0)))
        count = torch.tensor(list(lengths))[:, None]
        return place >= len(place) - count if self.left else place < count

    def _filled(self, rows: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
        pool = torch.cat([row.flatten() for row in rows])
        if self.fill != "neutral" and not pool.is_floating_point() and len(pool):
            # Random values of the rows themselves are valid ids, drawn the same way in each run.
            return pool[torch.randint(len(pool), shape, generator=torch.Generator().manual_seed(len(pool)))]
        values = {"neutral": 0.0, "other": 1.25, "huge": HUGE, "nan": float("nan")}
        return torch.full(shape, values[self.fill] if pool.is_floating_point() else 0, dtype=rows[0].dtype)


Example = TypeVar("Example")
Output = TypeVar("Output")  # whatever the module returns
ExampleIn = TypeVar("ExampleIn", contravariant=True)
OutputIn = TypeVar("OutputIn", contravariant=True)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Collate = Callable[[Sequence[Example], Padding], object]
Splitter = Callable[[Output, Sequence[int]], Sequence[Tensor]]  # output, lengths -> one tensor per example
LossFunction = Callable[[Output, Sequence[Example]], Tensor | Loss]


class ExampleMetric(Protocol[OutputIn, ExampleIn]):
    """A metric over batches of examples, for `audit_module`; it computes values by name, or a single value."""

    def update(self, output: OutputIn, examples: Sequence[ExampleIn], /) -> object: ...

    def compute(self) -> object: ...


@dataclass
class ModuleSubject(Generic[Example, Output]):
    """A module with its examples, (R,) their lengths, and the arguments of `audit_module` with these names."""

    name: str
    module: nn.Module
    examples: Sequence[Example]
    collate: Collate[Example]
    lengths: IntArray
    left: bool
    split_output: Splitter[Output] | None
    loss: LossFunction[Output, Example] | None
    decode: Splitter[Output] | None
    _readings: list[str] | None = field(default=None, init=False)  # one reading per part of the output
    has_padding = True

    @property
    def is_even(self) -> BoolArray:
        return np.ones(len(self.lengths), dtype=bool)

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        lengths = self._lengths_of(rows)
        return Geometry(lengths, Padding(setting.widen).width(max(lengths, default=0)), self.left)

    def split(self, rows: Sequence[int]) -> list[Sequence[int]]:
        return [rows]

    def cast(self, arithmetic: Arithmetic) -> ModuleSubject[Example, Output]:
        """Return the subject with its module copied to another arithmetic; half precisions are cast, not autocast."""
        return replace(self, module=copy.deepcopy(self.module).to(DTYPES[arithmetic]))

    def continued(self, cuts: Sequence[Cut]) -> ModuleSubject[Example, Output]:
        """Return the subject with three examples for each cut (`CausalSubject`)."""
        examples = [example for cut in cuts for example in _continued(self.examples[cut.row], cut.kept)]
        lengths = [n for row, kept in cuts for n in (self.lengths[row], kept, self.lengths[row])]
        return replace(self, examples=examples, lengths=np.array(lengths, dtype=np.int64), loss=None)

    def run(self, rows: Sequence[int], setting: Setting) -> RunOutput:
        examples = self._examples_of(rows)
        output = self.output(examples, setting)
        lengths = list(self._lengths_of(rows))
        if self.split_output is None:
            outputs = self._split(output, rows, setting)
        else:
            outputs = _call_splitter("split_output", self.split_output, output, lengths)
        if len(outputs) != len(rows):
            raise AdapterError(
                f"split_output returned {len(outputs)} tensors for {len(rows)} examples; return one for each"
            )
        loss = None if self.loss is None else _call("loss", self.loss, output, examples)
        if isinstance(loss, Tensor) and loss.dim() == 0:
            loss = Loss(loss, 0)
        elif isinstance(loss, Tensor):
            if loss.shape != (len(outputs),):
                raise AdapterError(
                    f"loss returned a tensor of shape {tuple(loss.shape)}; return a mean, one loss for each example, "
                    "or Loss(sum, count)"
                )
            outputs = [_concatenate(pair) for pair in zip(outputs, loss, strict=True)]
            loss = Loss(loss.sum(), len(outputs))
        predictions = None if self.decode is None else _call_splitter("decode", self.decode, output, lengths)
        return RunOutput(outputs, loss, predictions)

    def output(self, examples: Sequence[Example], setting: Setting) -> Output:
        positional, named = self.arguments(examples, setting)
        output: Output = self.module(*positional, **named)
        return output

    def arguments(self, examples: Sequence[Example], setting: Setting) -> tuple[list[object], dict[str, object]]:
        """Collate examples into the module's positional and named arguments, in its arithmetic and on its device.

        Raises:
            AdapterError: `collate` raises, or returns a list, which may mean one argument or several.
        """
        batch = _call("collate", self.collate, examples, Padding(setting.widen, setting.fill, self.left))
        if isinstance(batch, list):
            raise AdapterError("collate returned a list; return a tuple of arguments, a dict by name or a tensor")
        floats = (parameter for parameter in self.module.parameters() if parameter.is_floating_point())
        like = next(floats, torch.zeros(0, dtype=torch.float64))
        if isinstance(batch, Mapping):
            return [], {name: _like(value, like) for name, value in batch.items()}
        return [_like(value, like) for value in (batch if isinstance(batch, tuple) else (batch,))], {}

    def check_collate(self) -> None:
        """Check that `collate` pads as its `Padding` argument says.

        Raises:
            AdapterError: it pads, but not to that width or not with that content.
        """
        order = np.argsort(self.lengths, kind="stable")
        rows = [int(order[-1]), int(order[0])]
        examples, longest = self._examples_of(rows), int(self.lengths[rows[0]])
        if longest == self.lengths[rows[1]]:
            return
        plain, wide, poisoned = (self._tensors(examples, to) for to in (Setting(), Setting(2), Setting(1, "nan")))
        is_padded = any(longest in tensor.shape for tensor in plain)
        if is_padded and [tensor.shape for tensor in plain] == [tensor.shape for tensor in wide]:
            raise AdapterError("collate does not pad to the requested width; use padding.stack or padding.width")
        first = examples[0]
        has_floats = isinstance(first, Tensor) and first.is_floating_point()
        if is_padded and has_floats and not any(bool(tensor.isnan().any()) for tensor in poisoned):
            raise AdapterError("collate does not write padding.fill into the padding; use padding.stack")

    def figures(self, metric: ExampleMetric[Output, Example], batches: Sequence[Sequence[int]]) -> Mapping[str, object]:
        """Return the values of a new metric over batches of examples."""
        with torch.no_grad():
            for rows in batches:
                examples = self._examples_of(rows)
                _call("metric.update", metric.update, self.output(examples, Setting()), examples)
        values = _call("metric.compute", metric.compute)
        return values if isinstance(values, Mapping) else {"metric": values}

    def _examples_of(self, rows: Sequence[int]) -> list[Example]:
        return [self.examples[row] for row in rows]

    def _lengths_of(self, rows: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.lengths[list(rows)].tolist())

    def _tensors(self, examples: Sequence[Example], setting: Setting) -> list[Tensor]:
        positional, named = self.arguments(examples, setting)
        return [value for value in (*positional, *named.values()) if isinstance(value, Tensor)]

    def _split(self, output: Output, rows: Sequence[int], setting: Setting) -> list[Tensor]:
        """Split an output into one tensor per example, in which all parts of the output are concatenated."""
        if self._readings is None:
            self._readings = self._read_parts()
        geometry, tensors = self.geometry(rows, setting), parts(output)
        if len(tensors) != len(self._readings):
            raise AdapterError(
                f"the output has {len(tensors)} tensors, earlier it had {len(self._readings)}; pass split_output="
            )
        split_parts = [split(part, how, geometry) for part, how in zip(tensors, self._readings, strict=True)]
        return [_concatenate(pieces) for pieces in zip(*split_parts, strict=True)]

    def _read_parts(self) -> list[str]:
        """Return the reading of each part of the output, from batches of different sizes and widths.

        Raises:
            AdapterError: no reading of a part fits all of them, or an example's share of it changes its shape.
        """
        order = [int(row) for row in np.argsort(-self.lengths, kind="stable") if self.lengths[row] > 0]
        runs: list[tuple[list[Part], Geometry]] = []
        for rows, widen in ((order[:3], 1), (order[-2:], 2), (order[:1], 3)):
            with torch.no_grad():
                output = self.output(self._examples_of(rows), Setting(widen))
            runs.append((parts(output), self.geometry(rows, Setting(widen))))
        n_parts = len(runs[0][0])
        if not n_parts or any(len(tensors) != n_parts for tensors, _ in runs):
            raise AdapterError("the output holds no tensors, or not always the same number of them; pass split_output=")
        return [_read_part(place, runs) for place in range(n_parts)]


def _continued(example: Any, kept: int) -> list[Any]:
    """Return three sequences: the example, its first `kept` tokens, and these followed by others of its tokens.

    Raises:
        AdapterError: it is neither a tensor nor a list.
    """
    if isinstance(example, Tensor):
        return [example, example[:kept], torch.cat([example[:kept], example.flip(0)[: len(example) - kept]])]
    if isinstance(example, list):
        return [example, example[:kept], example[:kept] + example[::-1][: len(example) - kept]]
    raise AdapterError(f"causal: examples must be tensors or lists, got {type(example).__name__}")


def _call(
    name: str, function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Result:
    """Call a function of the user, whose errors are reported as its own, not as the module's."""
    try:
        return function(*arguments, **named)
    except Exception as error:
        raise AdapterError(f"{name} raised {type(error).__name__}: {first_line(error)}") from error


def _call_splitter(name: str, function: Splitter[Output], output: Output, lengths: Sequence[int]) -> list[Tensor]:
    return _call(name, lambda: list(function(output, lengths)))


def _read_part(place: int, runs: Sequence[tuple[list[Part], Geometry]]) -> str:
    part_runs = [(tensors[place], geometry) for tensors, geometry in runs]
    # The longest example is in the first and the last run, which is three times as wide: a right reading gives it the
    # same shape in both.
    if how := reading(part_runs):
        first, last = (split(part, how, geometry)[0] for part, geometry in (part_runs[0], part_runs[-1]))
        if first.shape == last.shape:
            return how
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else () for part, _ in part_runs]
    raise AdapterError(
        f"cannot split tensor {place + 1} of the output into examples (its shapes in three batches: {shapes}); "
        "pass split_output="
    )


def _concatenate(pieces: tuple[Tensor, ...]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat([piece.double().flatten() for piece in pieces])


def _like(value: object, like: Tensor) -> object:
    """Move a tensor to the device of `like`, and cast floats to its dtype."""
    if not isinstance(value, Tensor):
        return value
    return value.to(like) if value.is_floating_point() else value.to(like.device)
