"""Config node -> object: allow-listed targets, and keys and values checked against the constructor.

A node is a mapping with `_target_`, a dotted path to a class or function. Its other keys are the constructor's
arguments; nested nodes are built first. Arguments that no config can give (vocabularies, sizes) are passed as
`runtime` and reaches every constructor that has an argument of that name.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, Generic, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import SchemaError
from typing_extensions import get_protocol_members, is_protocol  # not in `typing` before Python 3.13

from runner.common.class_names import PROJECT, TARGET, registered, stable_name
from runner.common.errors import HydromelError, did_you_mean, quoted, shortened
from runner.config.validation import MISSING, bad_value, dotted, missing_option, unknown_option

Options = Mapping[str, object]
T = TypeVar("T")
GIVEN = {  # arguments that only a running program knows, by role
    "embedding": ("vocabs", "files"),
    "encoder": ("input_size", "causal", "carries_state"),
    "optimizer": ("params",),
    "schedule": ("total_updates", "updates_per_epoch"),
}


@dataclass(frozen=True)
class Factory(Generic[T]):
    """A checked node that is built when its remaining arguments are known."""

    node: Options
    where: str  # config key of the object, for messages
    plugins: tuple[str, ...]  # further modules that the user allowed
    kinds: tuple[type[object], ...]

    @classmethod
    def of(cls, node: Options, role: str, plugins: Sequence[str], *kinds: type[object]) -> Self:
        """Check a node and those within it as `build` does; the call passes the arguments in `GIVEN` for its role."""
        check_kinds(locate(node, role, plugins), role, *kinds)
        _check_nodes(node, role, GIVEN[role], plugins)
        return cls(node, role, tuple(plugins), kinds)

    @property
    def target(self) -> Callable[..., object]:
        """The class or function that the node names."""
        return locate(self.node, self.where, self.plugins)

    def __call__(self, **runtime: object) -> T:
        """Build the object; raises HydromelError if the constructor refuses a value."""
        built: T = build(self.node, self.where, runtime, self.plugins, *self.kinds)
        return built


def build(node: Options, where: str, runtime: Options, plugins: Sequence[str] = (), *kinds: type[object]) -> Any:
    """Build the object that `node` names.

    Args:
        where: its config key, for messages (`encoder`).
        runtime: arguments that no config gives.
        plugins: further modules that the user allowed on the command line.
        kinds: classes of the object, and protocols of which it must have all members.

    Raises:
        HydromelError: a target that is not allowed, does not exist or is of another kind, or an unknown, missing or
            ill-typed option.
    """
    target = locate(node, where, plugins)
    check_kinds(target, where, *kinds)
    options = {key: value for key, value in node.items() if key != TARGET}
    check_options(target, options, where, given=runtime)
    built = {key: _built(value, f"{where}.{key}", runtime, plugins) for key, value in options.items()}
    for name, adapter in _adapters(target).items():
        if name in built and not _is_plain(options[name]):
            _check_value(built[name], adapter, dotted(where, name))
    accepted = inspect.signature(target).parameters
    arguments = {name: value for name, value in runtime.items() if name in accepted} | built
    try:
        made = target(**arguments)
    except (ValueError, OverflowError) as error:
        raise HydromelError(f"{where}: {error}") from error
    check_kinds(made, where, *kinds)
    return made


def check_kinds(part: object, where: str, *kinds: type[object]) -> None:
    """Check that an object, or the objects of a class, are of the given classes and have all members of the protocols.

    Raises:
        HydromelError: another class, or a member is missing.
    """
    if inspect.isfunction(part):  # checked later, by its result
        return
    name = part.__name__ if inspect.isclass(part) else type(part).__name__
    for kind in kinds:
        if is_protocol(kind):
            lacking = _lacking(part, kind)
        elif issubclass(part, kind) if inspect.isclass(part) else isinstance(part, kind):
            continue
        else:
            raise HydromelError(f"{where}: {name} is not a {kind.__module__}.{kind.__name__}")
        if lacking:
            raise HydromelError(
                f"{where}: {name} lacks {', '.join(lacking)}, which {kind.__name__} in {kind.__module__} has"
            )


def _lacking(part: object, protocol: type[object]) -> list[str]:
    """Return the members of a protocol that an object lacks, or the methods that a class lacks."""
    members = sorted(get_protocol_members(protocol))
    if not inspect.isclass(part):
        return [member for member in members if not hasattr(part, member)]
    present = {member for base in part.__mro__[:-1] for member in vars(base)}
    return [member for member in members if callable(getattr(protocol, member, None)) and member not in present]


@cache
def _adapters(target: Callable[..., object]) -> Mapping[str, TypeAdapter[object] | None]:
    """Return pydantic's adapter of each annotated option of a target; None: its type has no schema.

    Raises:
        HydromelError: an annotation that cannot be resolved.
    """
    try:
        hints = get_type_hints(signed(target), include_extras=True)
    except NameError as error:
        raise HydromelError(
            f"an annotation of {target.__module__}.{target.__qualname__} cannot be resolved ({error}); "
            "import its name outside of `if TYPE_CHECKING`"
        ) from error
    return {name: _adapter_or_none(hint) for name, hint in hints.items()}


def _adapter_or_none(annotation: object) -> TypeAdapter[object] | None:
    try:
        return type_adapter(annotation)
    except (PydanticSchemaGenerationError, SchemaError):
        return None


def check_options(target: Callable[..., object], options: Options, where: str, given: Collection[str] = ()) -> None:
    """Check names and values of `options` against the signature of `target`; those in `given` are not required."""
    parameters = inspect.signature(target).parameters
    for name in options:
        if name not in parameters:
            raise HydromelError(unknown_option(name, parameters, where))
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty and name not in given
        if (required and name not in options) or options.get(name) == MISSING:
            raise HydromelError(missing_option(name, where))
    adapters = _adapters(target)
    for name, value in options.items():
        if name in adapters and _is_plain(value):
            _check_value(value, adapters[name], dotted(where, name))


def _check_nodes(value: object, where: str, given: Sequence[str], plugins: Sequence[str]) -> None:
    """Check names and values of every node in `value`, without building one; those in `given` are not required."""
    if isinstance(value, list):
        for place, item in enumerate(value):
            _check_nodes(item, f"{where}[{place}]", given, plugins)
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        _check_nodes(item, f"{where}.{key}", given, plugins)
        # beside nodes, as in parts=[{_target_: ...}, 3]
        if TARGET not in value and _is_plain(item) and not _is_plain(value):
            raise HydromelError(f"{where}.{key}={quoted(item)}: a node with _target_ is needed, as beside it")
    if TARGET in value:
        options = {key: item for key, item in value.items() if key != TARGET}
        check_options(locate(value, where, plugins), options, where, given)


def alternatives(node: Options, where: str, plugins: Sequence[str] = ()) -> dict[str, tuple[object, ...]]:
    """Return the other allowed values of each option of a node that takes one of a few values; raises as `locate`."""
    hints = get_type_hints(signed(locate(node, where, plugins)))
    few = {name: _few_values(hints[name]) for name in node if name in hints}
    return {name: tuple(v for v in values if v != node[name]) for name, values in few.items() if values}


def _few_values(annotation: object) -> tuple[object, ...]:
    """Return the values of a Literal, a bool, or a union of such and None; empty for other annotations."""
    if annotation is bool:
        return (False, True)
    if annotation is type(None):
        return (None,)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        by_member = [_few_values(member) for member in get_args(annotation)]
        return tuple(value for values in by_member for value in values) if all(by_member) else ()
    return ()


def _check_value(value: object, adapter: TypeAdapter[object] | None, where: str) -> None:
    if adapter is None and _is_plain(value):
        raise HydromelError(f"{where}={quoted(value)}: this option takes a node with _target_, not a value")
    try:
        if adapter is not None:
            adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise HydromelError(bad_value(where, value, error)) from error


def type_adapter(annotation: Any) -> TypeAdapter[object]:
    """Return pydantic's adapter of an annotation, which raises if the type has no schema."""
    return TypeAdapter[object](annotation, config=ConfigDict(arbitrary_types_allowed=True))


def signed(target: Callable[..., object]) -> Callable[..., object]:
    """Return the function whose annotations are the schema: a class's constructor, or the function itself."""
    constructor: Callable[..., object] = target.__init__ if inspect.isclass(target) else target
    return constructor


def _is_plain(value: object) -> bool:
    """Return True if a value holds no node that is yet to be built, so that its annotation can be checked."""
    if isinstance(value, Mapping):
        return TARGET not in value and all(_is_plain(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _built(value: object, where: str, runtime: Options, plugins: Sequence[str]) -> object:
    if isinstance(value, list):
        return [_built(item, f"{where}[{place}]", runtime, plugins) for place, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if TARGET in value:
        return build(value, where, runtime, plugins)
    return {key: _built(item, f"{where}.{key}", runtime, plugins) for key, item in value.items()}


def locate(node: Options, where: str, plugins: Sequence[str]) -> Callable[..., object]:
    """Return the class or function that a node names: one registered for its role, or one of a plugin.

    Raises:
        HydromelError: a target that is not allowed, or a target or plugin that does not exist.
    """
    for plugin in plugins:
        find_plugin(plugin.rstrip("."))
    path = node.get(TARGET)
    if not isinstance(path, str):
        raise HydromelError(f"{where} has no _target_; name one of its configs ({where}=NAME) or give _target_")
    own = tuple(f"{plugin.rstrip('.')}." for plugin in plugins)
    if not path.startswith(own) or not all(part.isidentifier() for part in path.split(".")):
        _check_registered(path, where, own)
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise
        raise HydromelError(f"{where}._target_={shortened(path)}: no module {shortened(error.name)}") from error
    target = vars(module).get(name)
    allowed = (*PROJECT, *own)
    # a module may not offer names that it merely imports
    if not callable(target) or not f"{target.__module__}.".startswith(allowed):
        public = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module_name]
        raise HydromelError(
            f"{where}._target_={shortened(path)}: {module_name} has no {shortened(name)}{did_you_mean(name, public)}"
        )
    located: Callable[..., object] = target
    return located


def _check_registered(path: str, where: str, own: Sequence[str]) -> None:
    """Raise HydromelError unless a target is one of those that configs/ names for its role."""
    role = where.partition(".")[0].partition("[")[0]
    present = registered(role)
    if path in present.values():
        return
    got = f"{where}._target_={shortened(path)}: not allowed"
    if path.startswith(PROJECT):
        moved = present.get(stable_name(path))
        hint = f"; did you mean '{moved}'?" if moved else did_you_mean(path, present.values())
        raise HydromelError(f"{got} under {role}{hint} Allowed: {', '.join(present.values()) or 'nothing'}")
    raise HydromelError(f"{got}; it must start with {', '.join((*PROJECT, *own))} (see the option plugins)")


def find_plugin(name: str) -> None:
    """Check that a plugin can be imported; if need be, the working directory is added at the end of Python's path.

    Since it is last, a folder with the name of an installed package (`configs`, `datasets`) does not replace it.
    Raises HydromelError if there is no such module.
    """
    folder = str(Path.cwd())
    if not _exists(name) and folder not in sys.path:
        sys.path.append(folder)
    if not _exists(name):
        raise HydromelError(
            f"plugins: no module '{name}' in {folder}, in PYTHONPATH or among the installed packages{_namesake(name)}"
        )


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # no parent package; an empty name
        return False


def _namesake(name: str) -> str:
    """Return a hint at the package that hides the user's module of the same name; empty if there is none."""
    root = name.partition(".")[0]
    spec = find_spec(root) if root != name and _exists(root) else None
    return "" if spec is None else f"; '{root}' is {spec.origin}; if that is not your module, rename yours"
