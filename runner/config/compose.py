"""Compose a config as `hydromel OVERRIDES` does, for other commands and for the trials of a search."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import KeyValidationError, MissingMandatoryValue, OmegaConfBaseException

from runner.common.class_names import apply_to_mappings
from runner.common.errors import HydromelError, did_you_mean, shortened
from runner.compat.hydra import root_of
from runner.config.arguments import as_overrides, with_home
from runner.config.groups import names_by_group
from runner.config.keys import check_keys_of_files, check_keys_of_override, text_of_key
from runner.config.schema import NOTES, RunConfig
from runner.config.suggestions import suggestion
from runner.config.validation import unknown_option

_GROUP = "batching="
_TRACKER, SEVERAL = "tracker", "several"  # a group, and the name of its config that holds several others
NULLABLE = ("metric", "search", "run_plots", "experiment")  # groups that may be null
# extras of pyproject.toml by the launcher that they install
_EXTRAS = {"joblib": "sweep", "submitit_local": "cluster", "submitit_slurm": "cluster"}
_LONGEST_LINE = 300  # most characters of a message of Hydra, since it may contain a value
# Hydra makes the folder of a run from the config as it is written: ${home:PATH} is PATH with `~` at its start replaced
OmegaConf.register_new_resolver("home", os.path.expanduser, replace=True)


def compose_config(overrides: Sequence[str], config_dir: Path | None = None) -> RunConfig:
    """Compose the config that `GROUP=NAME` and `key=value` describe; `config_dir` is a folder with further configs.

    Raises:
        HydromelError: an unknown group, name or key, a value of the wrong type or not of the form key=value, several
            values for one key (there is no sweep here), or a folder that does not exist.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise HydromelError(f"--config-dir {config_dir}: no such folder")
    return compose_from(overrides, [] if config_dir is None else [str(config_dir.resolve())])


def compose_from(
    overrides: Sequence[str], folders: Sequence[str], values: Mapping[str, object] | None = None
) -> RunConfig:
    """Compose a config from the project's own and further `folders`, then set `values` by their dotted keys.

    Raises:
        HydromelError: as `compose_config`; also a key of `values` that the config does not have.
    """
    given = [item for override in as_overrides(overrides) for item in for_hydra(override)]
    for override in given:
        if parsed(override).is_sweep_override():  # a sweep, such as seed=1,2
            raise HydromelError(f"{shortened(override)}: one value is taken here; only batching=a,b names several")
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    try:
        with _without_hydra(), initialize_config_module("configs", version_base="1.3"):
            composed = compose("train", [*given, *search], return_hydra_config=True)
            choices = dict(composed.hydra.runtime.choices)
            with open_dict(composed):
                del composed["hydra"]
            for key, value in (values or {}).items():
                OmegaConf.update(composed, key, value, merge=False)
    except Exception as error:  # nothing but Hydra runs here, and it raises errors of many classes
        raise HydromelError(explain(error)) from error
    check_keys_of_files(folders, choices)
    return resolve(composed, choices, [*given, *(values or {})])


@contextmanager
def _without_hydra() -> Iterator[None]:
    """Set aside a Hydra that runs, such as that of a sweep or of a user's own program: it composes other configs."""
    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def as_written(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a command as they were written: Hydra's list would replace `${key}` by a value."""
    if not isinstance(overrides, ListConfig):
        return [*overrides]
    written = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(written, list)
    return [str(override) for override in written]


def for_hydra(override: str) -> list[str]:
    """Return an override of the command line as Hydra takes it: `metric=null` is `~metric`.

    `tracker=[mlflow,tensorboard]` becomes an override for several trackers, and one for each of them.

    Raises:
        HydromelError: the override is not of the form key=value, or gives a group anything but names of its configs;
            Hydra would end in a traceback.
    """
    given = parsed(override)
    group, value = given.key_or_group, given.value()
    if group == _TRACKER and given.package is None and isinstance(value, list):
        return _several_trackers(override, value)
    ours = group in names_by_group()
    if given.is_delete() or not (ours or group.partition("/")[0] in ("hydra", "")):
        return [override]
    if value is None and group in NULLABLE:
        return [f"~{group}"]
    names = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    for name in names:
        text = name.text if isinstance(name, QuotedString) else name
        if isinstance(text, dict | Glob):  # a dict gives options of the node, and a glob matches several names
            continue
        if not isinstance(text, str) or {"..", ""} & set(text.split("/")):
            allowed = ", ".join(names_of(group)) if ours else "see hydromel train --help"
            raise HydromelError(f"{shortened(override)}: give the name of one of its configs. Allowed: {allowed}")
    return [override]


def _several_trackers(override: str, names: Sequence[object]) -> list[str]:
    texts = [name.text if isinstance(name, QuotedString) else name for name in names]
    if not texts or SEVERAL in texts or any(texts.count(text) > 1 or not isinstance(text, str) for text in texts):
        raise HydromelError(f"{shortened(override)}: name each tracker once, as in {_TRACKER}=[mlflow,tensorboard]")
    for name in texts:
        for_hydra(f"{_TRACKER}={name}")  # raises an error unless it is a name
    return [f"{_TRACKER}={SEVERAL}", *(f"+{_TRACKER}@{_TRACKER}.trackers.{name}={name}" for name in texts)]


def parsed(override: str) -> Override:
    """Return an override as Hydra parses it.

    Raises HydromelError if it is not of the form key=value, or has a mapping that would lose one of its keys.
    """
    try:
        result = OverridesParser.create().parse_overrides([override])[0]
    except HydraException as error:
        raise HydromelError(explain(error)) from error
    except (ValueError, RecursionError) as error:  # raised for a number of thousands of digits, or a thousand brackets
        raise HydromelError(f"{shortened(override)}: cannot be read ({error})") from error
    if "{" in override:
        check_keys_of_override(override)
    return result


def resolve(config: DictConfig, choices: Mapping[str, object], overrides: Sequence[str] = ()) -> RunConfig:
    """Return the typed config with all interpolations resolved, and the names chosen for its groups.

    `overrides` are those of the command line; the config lists their options in `given`.

    Raises:
        HydromelError: a value that is missing, or that is not allowed at the top level or in one of its sections.
    """
    for name in NOTES:
        if name in config:
            raise HydromelError(unknown_option(name, RunConfig.option_names(), ""))
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise HydromelError(explain(error)) from error
    assert isinstance(plain, dict)
    chosen = {group: name for group, name in choices.items() if not group.startswith("hydra/")}
    options = {str(key): apply_to_mappings(with_home(value), _with_string_keys) for key, value in plain.items()}
    for name in options.keys() - {*RunConfig.option_names()}:  # +batch_size=16
        others = {key: value for key, value in options.items() if key != name}
        if meant := suggestion(name, str(options[name]), RunConfig.option_names(), others):
            raise HydromelError(f"{shortened(name)}: unknown option{meant}")
    given = dict.fromkeys(override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides)
    return RunConfig.of(options | {"choices": chosen, "given": list(given)})


def _with_string_keys(mapping: Mapping[str, object]) -> dict[str, object]:
    """Return the mapping with string keys at every depth: `{0: 2.0}` means label `0`, `{true: 2.0}` label `true`."""
    return {text_of_key(key): apply_to_mappings(value, _with_string_keys) for key, value in mapping.items()}


def compose_strategies(
    overrides: Sequence[str], config_dir: Path | None, sizes: Sequence[int] = ()
) -> tuple[list[RunConfig], dict[str, str]]:
    """Compose a config for each strategy that the overrides name (`batching=a,b`), or for all, and each batch size.

    Return also, by name, why others do not compose. Raises HydromelError if a name is unknown or given twice, or if no
    strategy composes.
    """
    overrides = as_overrides(overrides)
    named = [override.removeprefix(_GROUP).split(",") for override in overrides if override.startswith(_GROUP)]
    others = [override for override in overrides if not override.startswith(_GROUP)]
    of_sizes = [[f"batching.batch_size={size}"] for size in sizes] or [[]]
    known = names_of("batching", config_dir)
    if named and len(set(named[-1])) < len(named[-1]):
        raise HydromelError(f"{_GROUP}{','.join(named[-1])}: name each strategy once")
    configs, left_out = [], {}
    for name in named[-1] if named else known:
        for of_size in of_sizes:
            try:
                configs.append(compose_config([*others, _GROUP + name, *of_size], config_dir))
            except HydromelError as error:
                if name not in known:  # mistyped
                    raise
                left_out[name] = str(error)
    if not configs:
        raise HydromelError(next(iter(left_out.values())))
    return configs, left_out


def under(config: RunConfig, strategy: RunConfig) -> RunConfig:
    """Return `config` with the batching strategy of another one."""
    choices = {**config.choices, "batching": strategy.choices["batching"]}
    return config.changed(batching=strategy.batching, choices=choices)


def names_of(group: str, config_dir: Path | None = None) -> list[str]:
    """Return the names of all configs of a group, such as `batching`."""
    return names_by_group([] if config_dir is None else [config_dir]).get(group, [])


def explain(error: BaseException) -> str:
    """Return one line for any error of composing a config: what was given, what is allowed, where."""
    cause = error.__cause__
    if isinstance(error, MissingConfigException):
        return _unknown_config(error)
    if isinstance(error, OverrideParseException):
        reason = shortened(" ".join(error.message.split()).partition(" See ")[0], _LONGEST_LINE)
        if "LexerNoViableAlt" in reason:
            option = error.override.partition("=")[0]
            return f"{shortened(error.override)}: such a value needs two pairs of quotes: {option}='\"...\"'"
        return f"{shortened(error.override)}: not of the form key=value ({reason})"
    if isinstance(error, MissingMandatoryValue) or isinstance(cause, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or getattr(cause, "full_key", None)
        return f"{key} is missing; give {key}=VALUE"
    if match := re.search(r"(Ambiguous value for argument|Sweep parameters) '(.*)'(\n| requires)", str(error)):
        key, _, values = match[2].partition("=")
        one = f"""; one value is {key}=[{values}], or {key}='"{values}"' as text""" if match[3] == "\n" else ""
        return shortened(f"{match[2]}: several values need -m: hydromel -m ... {match[2]}{one}", _LONGEST_LINE)
    override = match[1] if (match := re.search(r"To append to your config use \+(.+)", str(error))) else ""
    for candidate in (error, cause):
        if isinstance(candidate, OmegaConfBaseException) and (line := _unknown_key(candidate, override)):
            return line
    if match := re.search(r"Could not override '([^']+)'", str(error)):
        return f"{match[1]}: no such option or group; see `hydromel train --help` and `hydromel --cfg job`"
    if null := next((each for each in (error, cause) if isinstance(each, KeyValidationError)), None):
        given = re.search(r"override '?([\w.]+)=", str(error))
        key = given[1] if given else null.full_key or "KEY"
        return (
            f"{shortened(str(error), _LONGEST_LINE)}: a name in it is null, which has to be quoted in a YAML file "
            f'("null": VALUE); on the command line give ++{key}.null=VALUE'
        )
    text, _, _ = (str(error) or str(cause) or type(error).__name__).partition("\n    full_key: ")
    key = error.full_key if isinstance(error, OmegaConfBaseException) else None
    return shortened(" ".join(f"{key}: {text}".split() if key else text.split()), _LONGEST_LINE)


def _unknown_config(error: MissingConfigException) -> str:
    path = error.missing_cfg_file or ""
    group, _, name = path.rpartition("/")
    options = sorted(error.options or [])
    if not options and group:  # one of several: features=[words,x]
        return f"{shortened(group)}={shortened(name)}: unknown; `hydromel train --help` lists all names"
    if not options:
        return shortened(" ".join(str(error).split()), _LONGEST_LINE)
    if group == "hydra/launcher" and name in _EXTRAS:
        return f"{path.replace('launcher/', 'launcher=')} is not installed: pip install 'hydromel[{_EXTRAS[name]}]'"
    name = shortened(name)
    return f"{group}={name}: unknown{did_you_mean(name, options)} Allowed: {', '.join(options)}"


def _unknown_key(error: OmegaConfBaseException, override: str) -> str | None:
    """Return the message for a key that the config does not have; `override` is the argument, empty if not known."""
    parent, key = error.parent_node, error.full_key
    if not isinstance(parent, DictConfig) or key is None:
        return None
    content = OmegaConf.to_container(parent)
    if not isinstance(content, dict):  # null or missing: it has no options
        return None
    options = [str(option) for option in content]
    name = str(error.key if error.key is not None else key.rpartition(".")[2])
    if name in options:
        return None
    where = key.rpartition(".")[0]
    whole = OmegaConf.to_container(root_of(parent))
    assert isinstance(whole, dict)
    everything = {str(name): item for name, item in whole.items()}
    given, _, value = override.partition("=")
    if key.startswith(f"{given}."):  # it is within a value such as {pos: 1}
        override, given, value = key, key, ""
    if not content and where == given.rpartition(".")[0]:  # Hydra has put an empty mapping in the place of null
        return (
            f"{shortened(override)}: {where} is null; if it takes a mapping, give all of it, as in "
            f"{where}='{{{name}: {shortened(value)}}}'"
        )
    if meant := suggestion(given or key, value, options, everything):
        return f"{shortened(override or key)}: unknown option{meant}"
    if not where:
        return unknown_option(name, RunConfig.option_names(), "")
    # a mapping whose keys the user chooses: columns of a file, parts of an embedding
    open_end = "." in where and "_target_" not in content
    adds = f" (a new one is added by +{key}=VALUE)" if open_end else ""
    return (
        f"{shortened(key)}: unknown option{did_you_mean(name, options)} Allowed in {where}: {', '.join(options)}{adds}"
    )
