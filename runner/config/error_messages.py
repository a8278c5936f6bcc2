"""Hydra's and OmegaConf's errors in one line: what was given, what is allowed, where."""

from __future__ import annotations

import re

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from runner.common.errors import did_you_mean


def explain(error: BaseException) -> str:
    """Return one line for any error of composing a config."""
    cause = error.__cause__
    if isinstance(error, MissingConfigException):
        return _unknown_config(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not of the form key=value ({' '.join(error.message.split()).partition(' See ')[0]})"
    if isinstance(error, MissingMandatoryValue) or isinstance(cause, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or getattr(cause, "full_key", None)
        return f"{key} is missing; give {key}=VALUE"
    for candidate in (error, cause):
        if isinstance(candidate, OmegaConfBaseException) and (line := _unknown_key(candidate)):
            return line
    if match := re.search(r"Could not override '([^']+)'", str(error)):
        return f"{match[1]}: no such option or group; see `hydromel --help` and `hydromel --cfg job`"
    return " ".join((str(error) or str(cause) or type(error).__name__).split())


def _unknown_config(error: MissingConfigException) -> str:
    path = error.missing_cfg_file or ""
    group, _, name = path.rpartition("/")
    options = sorted(error.options or [])
    if not options and group:  # one of several: features=[words,x]
        return f"{group}={name}: unknown; `hydromel --help` lists all names"
    if not options:
        return " ".join(str(error).split())
    return f"{group}={name}: unknown{did_you_mean(name, options)} Allowed: {', '.join(options)}"


def _unknown_key(error: OmegaConfBaseException) -> str | None:
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
    where = key.rpartition(".")[0] or "the top level"
    open_end = "." in where and "_target_" not in content  # names of the user's own: columns of a file, parts
    adds = f" (a new one is added by +{key}=VALUE)" if open_end else ""
    return f"{key}: unknown option{did_you_mean(name, options)} Allowed in {where}: {', '.join(options)}{adds}"
