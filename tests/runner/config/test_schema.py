"""The typed config: what it refuses and in which words, what it keeps, and the JSON schema that is made of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli import train as command
from runner.common.errors import HydromelError
from runner.config.hashes import job_hash
from runner.config.json_schema import config_schema
from runner.config.saved import saved_model, saved_run, write_config
from runner.config.schema import NOTES, ModelConfig, RunConfig
from tests.helpers.composed import config, run_config

CONFIGS = Path(__file__).parents[3] / "configs"
CHOICES = [str(path.relative_to(CONFIGS).with_suffix("")).replace("/", "=") for path in CONFIGS.glob("*/*.yaml")]
KINDS = {"object": Mapping, "array": list, "string": str, "boolean": bool, "null": type(None)}
MISSING = object()


def changed(key: str, value: object) -> dict[str, Any]:
    """The default config with another value at a dotted key, or without one."""
    plain: dict[str, Any] = json.loads(json.dumps(config("search=optuna")))
    *parents, last = key.split(".")
    node = plain
    for parent in parents:
        node = node[parent]
    node.pop(last, None)
    if value is not MISSING:
        node[last] = value
    return plain


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "x", "seed='x': Input should be a valid integer"),
        ("seed", True, "seed=True: Input should be a valid integer"),
        ("seed", 1.0, "seed=1.0: Input should be a valid integer"),
        ("seed", "???", "seed is missing; give seed=VALUE"),
        ("seed", MISSING, "seed is missing; give seed=VALUE"),
        ("seed", -1, "seed=-1: Input should be greater than or equal to 0"),
        ("seed", 2**64, "seed=18446744073709551616: Input should be less than 4294967296"),
        ("threads", 100_000, "threads=100000: Input should be less than or equal to 1024"),
        ("train.metric", "", "train.metric='': Input should be text of one line"),
        ("data_dir", "a\n", "data_dir='a\\n': Input should be text of one line"),
        ("data_dir", "x" * 10**6, f"data_dir='{'x' * 59}...: String should have at most 4096 characters"),
        (
            "data_dir",
            "~nobody-of-that-name/x",
            "data_dir='~nobody-of-that-name/x': Input should be a path; there is no",
        ),
        ("sweep.id", "../x", "sweep.id='../x': Input should be a name of letters"),
        ("features", {"a/b": {"_target_": "x"}}, "features.a/b={'_target_': 'x'}: its key: Input should be a name"),
        ("plugins", [""], "plugins[0]='': Input should be text of one line"),
        ("plugins", ["a b"], "plugins[0]='a b': Input should be the name of a module"),
        ("truncate", MISSING, "truncate is missing; give truncate=VALUE"),
        ("seeed", 1, "seeed: unknown option; did you mean 'seed'? Allowed: "),
        ("device", "gpu", "device='gpu': Input should be 'auto', 'cpu' or 'cuda'"),
        ("threads", 0, "threads=0: Input should be greater than 0"),
        ("encoder", None, "encoder=None: Input should be one of its configs by name, or a mapping with _target_"),
        (
            "features.words",
            3,
            "features.words=3: Input should be one of its configs by name, or a mapping with _target_",
        ),
        ("train", 3, "train=3: Input should be a valid dictionary"),
        ("train.epoch", 3, "train.epoch: unknown option; did you mean 'epochs'? Allowed: epochs, "),
        ("train.epochs", "???", "train.epochs is missing; give train.epochs=VALUE"),
        ("train.clip_norm", float("inf"), "train.clip_norm=inf: Input should be a finite number"),
        ("sweep.id", [1], "sweep.id=[1]: Input should be a valid string; Input should be a valid integer"),
        ("search.trails", 3, "search.trails: unknown option; did you mean 'trials'?"),
        ("search.sampler", "grid", "search.sampler='grid': Input should be 'tpe' or 'random'"),
    ],
)
def test_a_mistake_is_told_in_one_line(key: str, value: object, message: str) -> None:
    with pytest.raises(HydromelError) as error:
        RunConfig.of(changed(key, value))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_unknown_keys_come_first_and_the_outer_section_before_the_inner() -> None:
    plain = changed("seed", "x") | {"seeed": 1}
    plain["train"]["epochs"] = 0
    with pytest.raises(HydromelError, match=r"^seeed: unknown option"):
        RunConfig.of(plain)
    del plain["seeed"]
    with pytest.raises(HydromelError, match=r"^seed='x'"):
        RunConfig.of(plain)


def test_values_are_kept_as_they_were_given() -> None:
    plain = changed("train.clip_norm", 5)
    typed = RunConfig.of(plain)
    assert typed.train.clip_norm == 5.0
    assert json.dumps(typed.resolved) == json.dumps(plain), "a hash would change"
    other = typed.changed(seed=7)
    assert (other.seed, other.resolved["seed"], typed.seed) == (7, 7, 1)
    assert job_hash(other.resolved) != job_hash(typed.resolved)
    with pytest.raises(HydromelError, match=r"^seed='x'"):
        typed.changed(seed="x")


def test_runs_of_before_an_option_are_read_by_what_was_done_then(tmp_path: Path) -> None:
    write_config(run_config(), tmp_path)
    path = tmp_path / "resolved.yaml"
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({key: plain[key] for key in plain if key not in ("truncate", "malloc", "seed")}))
    saved = saved_model(tmp_path, [], data_dir="elsewhere")
    assert type(saved) is ModelConfig
    assert (saved.truncate, saved.malloc, saved.dtype) == ("head", "return", "float32")
    with pytest.raises(HydromelError, match=f"^{re.escape(str(path))}: (seed|truncate|malloc) is missing"):
        saved_run(tmp_path, [])


def fits(value: object, schema: Any, root: Mapping[str, Any]) -> bool:
    """Whether a value fits a schema, as far as ours say anything."""
    if schema is True:
        return True
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema and not any(fits(value, item, root) for item in schema["anyOf"]):
        return False
    if ("enum" in schema and value not in schema["enum"]) or ("not" in schema and fits(value, schema["not"], root)):
        return False
    kind = schema.get("type")
    if kind in ("integer", "number"):
        number = isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
        return number and not value <= schema.get("exclusiveMinimum", float("-inf"))  # type: ignore[operator]
    if kind is not None and not isinstance(value, KINDS[kind]):
        return False
    if "pattern" in schema and not re.search(schema["pattern"], str(value)):
        return False
    if isinstance(value, Mapping):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", {})
        if not set(schema.get("required", ())) <= set(value) or (rest is False and not set(value) <= set(known)):
            return False
        return all(fits(item, known.get(key, rest or {}), root) for key, item in value.items())
    return not isinstance(value, list) or all(fits(item, schema.get("items", {}), root) for item in value)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema()


@pytest.mark.parametrize("choice", CHOICES)
def test_every_config_fits_the_json_schema(choice: str, schema: dict[str, Any]) -> None:
    role, _, name = choice.partition("=")
    given = yaml.safe_load((CONFIGS / role / f"{name}.yaml").read_text(encoding="utf-8"))
    if role == "experiment":
        assert fits({key: given[key] for key in given if "@" not in key}, schema, schema)
    elif "_target_" in given or role in ("batching", "encoder"):
        assert fits(given, schema["$defs"][role], schema)


def test_the_json_schema_tells_mistakes_and_speaks_by_the_comments(schema: dict[str, Any]) -> None:
    plain = config("search=optuna", "run_plots=null", "features=[words,chars]")
    for note in NOTES:
        del plain[note]
        assert note not in schema["properties"]
    assert fits(plain, schema, schema)
    assert fits({"train": {"epochs": 3}, "max_length": "${oc.env:X}"}, schema, schema), "a part of the options"
    own = {"_target_": "mine.Encoder", "depth": 3}
    assert fits({"encoder": own}, schema, schema), "a plugin's class has options of its own"
    for wrong in ({"seeed": 1}, {"seed": "x"}, {"train": {"epoch": 3}}, {"encoder": {"hiden": 3}}):
        assert not fits(plain | wrong, schema, schema), wrong
    assert schema["properties"]["seed"]["description"].startswith("Random seed")
    assert schema["$defs"]["TrainSettings"]["properties"]["epochs"]["description"].startswith("Number of passes")


def test_the_command_writes_the_json_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    file = tmp_path / "schema.json"
    for arguments, code in ((["--schema", str(file)], 0), (["--schema"], 1), (["--schema", str(file), "seed=1"], 1)):
        monkeypatch.setattr(sys, "argv", ["hydromel", *arguments])
        with pytest.raises(SystemExit) as exit_:
            command.main()
        assert exit_.value.code == code
    assert json.loads(file.read_text(encoding="utf-8")) == config_schema()
    assert len(capfd.readouterr().err.strip().splitlines()) == 2
