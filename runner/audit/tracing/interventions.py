"""Changes put into a run by hooks, to see what hears of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from runner.audit.tracing.alignment import Geometry, possible, worst_difference
from runner.audit.tracing.observe import Record, Setting, Subject, observe, trace, weights_like
from runner.ragged.ragged import Ragged

Change = Callable[[Tensor], Tensor]
SHIFT = 0.75  # of a size with activations
_PADDED = ("padded", "time_major", "channels_first", "flat")


def is_used(subject: Subject, rows: Sequence[int], setting: Setting, record: Record) -> bool:
    """Whether the subject's answers hear of a part of a module's output: an LSTM's final states are often ignored."""
    calls = -1

    def shift(module: nn.Module, inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        return changed(output, _shift_unevenly, only=record.part) if calls == record.call else output

    before = observe(subject, rows, setting)
    with ExitStack() as hooks:
        hooks.callback(subject.module.get_submodule(record.module).register_forward_hook(shift).remove)
        after = observe(subject, rows, setting)
    if before.error is not None or after.error is not None:
        return True
    return any(worst_difference(a, b) > 0 for a, b in zip(before.outputs, after.outputs, strict=True))


def _shift_unevenly(values: Tensor) -> Tensor:
    """Return values shifted by 0.75 to 1.5, rising: a normalisation takes an equal shift off again, up to rounding."""
    return values + SHIFT * weights_like(values).to(values)


def reads_padding(subject: Subject, rows: Sequence[int], module: str, allowed: float) -> bool:
    """Whether what a module says at real tokens changes with what stands in the padding of its inputs."""
    setting = Setting(widen=2)
    geometry = subject.geometry(rows, setting)
    touched = False

    def shift(_: nn.Module, args: Any, kwargs: Any) -> Any:
        nonlocal touched
        shifted = tuple(_shifted(one, geometry) for one in args), {k: _shifted(v, geometry) for k, v in kwargs.items()}
        touched = True
        return shifted

    before = trace(subject, rows, setting, only=module)
    with ExitStack() as hooks:
        target = subject.module.get_submodule(module)
        hooks.callback(target.register_forward_pre_hook(shift, with_kwargs=True).remove)
        after = trace(subject, rows, setting, only=module)
    return touched and any(_differ(a, b, geometry, allowed) for a, b in zip(before, after, strict=False))


def changed(output: Any, change: Change, only: int) -> Any:
    """The output with its `only`-th tensor changed; what holds the tensors stays as it is."""
    count = -1

    def walk(value: Any) -> Any:
        nonlocal count
        if isinstance(value, Tensor | Ragged | PackedSequence):
            count += 1
            return _apply(value, change) if count == only else value
        if isinstance(value, dict):
            return type(value)((name, walk(one)) for name, one in value.items())
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(walk, value))
        if isinstance(value, tuple | list):
            return type(value)(map(walk, value))
        return value

    return walk(output)


def _apply(value: Tensor | Ragged | PackedSequence, change: Change) -> Any:
    if isinstance(value, Ragged):
        return value.with_values(change(value.values))
    if isinstance(value, PackedSequence):
        return value._replace(data=change(value.data))
    return change(value) if value.is_floating_point() else value


def _shifted(value: Any, geometry: Geometry) -> Any:
    """An input with `SHIFT` added in its padded places, where it has any."""
    if isinstance(value, Ragged) and value.layout == "padded" and value.values.is_floating_point():
        mask = value.rows.mask.view(*value.rows.mask.shape, *[1] * (value.values.dim() - 2))
        return value.with_values(value.values + SHIFT * ~mask)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    how = next((one for one in _PADDED if one in possible(value, geometry)), None)
    if how is None:
        return value
    shifted = value + SHIFT
    view, source = (_rows_first(one, how, geometry) for one in (shifted, value))
    for row in range(len(geometry.lengths)):
        view[row, geometry.places(row)] = source[row, geometry.places(row)]
    return shifted


def _rows_first(value: Tensor, how: str, geometry: Geometry) -> Tensor:
    """A view (B, T, *) of a padded tensor."""
    if how == "flat":
        return value.view(len(geometry.lengths), geometry.width, *value.shape[1:])
    if how == "time_major":
        return value.transpose(0, 1)
    return value.movedim(-1, 1) if how == "channels_first" else value


def _differ(mine: Record, theirs: Record, geometry: Geometry, allowed: float) -> bool:
    """At real tokens, or in values of whole rows."""
    a, b = mine.value, theirs.value
    if isinstance(a, Ragged) and isinstance(b, Ragged):
        return worst_difference(a.tokens(), b.tokens()) > allowed
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    how = next((one for one in _PADDED if one in possible(a, geometry)), None)
    if how is None:
        return worst_difference(a, b) > allowed
    first, second = _rows_first(a, how, geometry), _rows_first(b, how, geometry)
    places = [(row, geometry.places(row)) for row in range(len(geometry.lengths))]
    return any(worst_difference(first[place], second[place]) > allowed for place in places)
