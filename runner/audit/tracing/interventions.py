"""Interventions: changes made to a run by hooks, to see which values depend on them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from runner.audit.tracing.alignment import PADDED, Geometry, Part, possible, rows_first, worst_difference
from runner.audit.tracing.observe import Record, Setting, Subject, observe, trace, weights_like
from runner.ragged.ragged import Ragged

SHIFT = 0.75  # a magnitude that is typical of activations


def is_used(subject: Subject, rows: Sequence[int], setting: Setting, record: Record) -> bool:
    """Return True if the subject's outputs depend on a part of a module's output.

    Many parts are ignored, such as the final states of an LSTM, and may hold anything.
    """
    calls = -1

    def shift(module: nn.Module, inputs: object, output: object) -> object:
        nonlocal calls
        calls += 1
        return _shifted(output, record.part) if calls == record.call else output

    before = observe(subject, rows, setting)
    with subject.module.get_submodule(record.module).register_forward_hook(shift):
        after = observe(subject, rows, setting)
    if before.error is not None or after.error is not None:
        return True
    return any(worst_difference(a, b) > 0 for a, b in zip(before.outputs, after.outputs, strict=True))


def _shift_unevenly(values: Tensor) -> Tensor:
    """Return values shifted by 0.75 to 1.5, increasingly, since a normalisation would undo an equal shift."""
    return values + SHIFT * weights_like(values).to(values)


def reads_padding(subject: Subject, rows: Sequence[int], module: str, allowed: float) -> bool:
    """Return True if a module's output at real tokens changes with the values in the padding of its inputs."""
    setting = Setting(widen=2)
    geometry = subject.geometry(rows, setting)
    touched = False

    def shift(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        nonlocal touched
        touched = True
        named = {name: _shift_padding(value, geometry) for name, value in kwargs.items()}
        return tuple(_shift_padding(value, geometry) for value in args), named

    before = trace(subject, rows, setting, only=module)
    with subject.module.get_submodule(module).register_forward_pre_hook(shift, with_kwargs=True):
        after = trace(subject, rows, setting, only=module)
    return touched and any(_differ(a, b, geometry, allowed) for a, b in zip(before, after, strict=False))


def _shifted(output: object, only: int) -> object:
    """Return the output with its `only`-th tensor shifted, in the same containers."""
    count = -1

    def walk(value: object) -> object:
        nonlocal count
        if isinstance(value, Part):
            count += 1
            return _shift_part(value) if count == only else value
        if isinstance(value, dict):
            return type(value)((name, walk(item)) for name, item in value.items())
        if isinstance(value, tuple) and hasattr(value, "_make"):  # a NamedTuple
            return value._make(map(walk, value))
        if isinstance(value, tuple | list):
            return type(value)(map(walk, value))
        return value

    return walk(output)


def _shift_part(part: Part) -> Part:
    if isinstance(part, Ragged):
        return part.with_values(_shift_unevenly(part.values))
    if isinstance(part, PackedSequence):
        return part._replace(data=_shift_unevenly(part.data))
    return _shift_unevenly(part) if part.is_floating_point() else part


def _shift_padding(value: object, geometry: Geometry) -> object:
    """Return an input with `SHIFT` added at its padded positions, if it has any."""
    if isinstance(value, Ragged) and value.layout == "padded" and value.values.is_floating_point():
        mask = value.rows.mask.view(*value.rows.mask.shape, *[1] * (value.values.dim() - 2))
        return value.with_values(value.values + SHIFT * ~mask)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    shifted = value + SHIFT
    view, source = _rows_first(shifted, geometry), _rows_first(value, geometry)
    if view is None or source is None:
        return value
    for row in range(len(geometry.lengths)):
        view[row, geometry.places(row)] = source[row, geometry.places(row)]
    return shifted


def _rows_first(value: Tensor, geometry: Geometry) -> Tensor | None:
    """Return a view (B, T, *) by the likeliest reading with padding, or None if the shape allows none."""
    allowed = possible(value, geometry)
    how = next((reading for reading in PADDED if reading in allowed), None)
    return None if how is None else rows_first(value, how, geometry)


def _differ(before: Record, after: Record, geometry: Geometry, allowed: float) -> bool:
    """Return True if two records differ at real tokens, or in values of whole rows."""
    a, b = before.value, after.value
    if isinstance(a, Ragged) and isinstance(b, Ragged):
        return worst_difference(a.tokens(), b.tokens()) > allowed
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    first, second = _rows_first(a, geometry), _rows_first(b, geometry)
    if first is None or second is None:
        return worst_difference(a, b) > allowed
    places = [(row, geometry.places(row)) for row in range(len(geometry.lengths))]
    return any(worst_difference(first[place], second[place]) > allowed for place in places)
