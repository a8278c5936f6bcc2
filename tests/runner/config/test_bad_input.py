"""Nonsense in configs: every option takes a hostile value or refuses it, in one line, before data is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from torch.optim import Optimizer

from runner.cli import train as command
from runner.common.errors import HydromelError, quoted, shortened
from runner.common.types import Encoding, FilePath, Fraction, Module, Name, NonNegativeFloat, PositiveFloat, Text
from runner.components.run_components import Components, Plots, build_batching
from runner.config.compose import NULLABLE, compose_config, for_hydra
from runner.config.instantiate import Factory, build
from runner.config.schema import RunConfig
from runner.interfaces import Corpus, Embedding, Encoder, Metric, Schedule, Task
from runner.text.features import TokenFeature
from runner.text.tokenizers import Tokenizer
from runner.tracking.tracker import Tracker
from tests.helpers.composed import config, parts, run_config
from tests.test_configs import CHOICES, ROOT, left_to_the_user

NUMBERS = [0, -1, 2**31, 2**64, 10**30, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), True]
CONTROLS = ["a\n", "a\0b", "\ud800", "\x1b[31mx"]
TEXTS = ["", " ", *CONTROLS, "../x", "~nobody-of-that-name/x", "x" * 10**5, "punycode", "???"]
TREES: list[Any] = [None, [], [None], [[1]], ["a\n"], [10**30], {}, {"a": 1}, {"a\n": None}]
COMMAND, TRACKER = "runner.cli.train.main", "runner.tracking.tracker.NoTracker"
TARGETS = ["x", "", "os.system", COMMAND, TRACKER, "runner.\0.x", "runner..x", 3]
HOSTILE = [*NUMBERS, *TEXTS, *TREES, *({"_target_": target} for target in TARGETS)]
PARTS = 8  # of the options, so that several workers share them
BUILT: dict[object, type[object]] = {
    "task": Task,
    "dataset": Corpus,
    "metric": Metric,
    "tracker": Tracker,
    "run_plots": Plots,
    "tokenizer": Tokenizer,
}
WAITING: dict[object, type[object]] = {
    "embedding": Embedding,
    "encoder": Encoder,
    "optimizer": Optimizer,
    "schedule": Schedule,
}
GROUPS = sorted({choice.partition("=")[0] for choice in CHOICES})
Place = tuple[str | int, ...]


def places(node: Any, where: Place = ()) -> Iterator[Place]:
    """Yield the place of every value in a config."""
    if where:
        yield where
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield from places(item, (*where, key))


def at(node: Any, place: Place) -> Any:
    for key in place:
        node = node[key]
    return node


def changed(node: Any, place: Place, value: object) -> Any:
    """A copy with another value at a place."""
    if not place:
        return value
    copy = list(node) if isinstance(node, list) else dict(node)
    copy[place[0]] = changed(node[place[0]], place[1:], value)
    return copy


def option(plain: dict[str, Any], place: Place) -> tuple[object, ...]:
    """What a place is an option of: the class of its innermost node, and the place within."""
    nodes = [depth for depth in range(1, len(place)) if isinstance(at(plain, place[:depth]), dict)]
    depth = max((depth for depth in nodes if "_target_" in at(plain, place[:depth])), default=0)
    return (place[0], at(plain, place[:depth]).get("_target_"), *place[depth:])


def choices() -> dict[str, list[str]]:
    """By group, a choice for each set of options; most data sets have the same ones."""
    chosen: dict[str, dict[tuple[object, ...], str]] = {}
    for choice in CHOICES:
        group, _, name = choice.partition("=")
        given = yaml.safe_load((ROOT / group / f"{name}.yaml").read_text(encoding="utf-8"))
        if group != "experiment":
            chosen.setdefault(group, {}).setdefault((given.get("_target_", name), *given), choice)
    return {group: list(one_each.values()) for group, one_each in chosen.items()}


@cache
def options() -> list[tuple[dict[str, Any], Place]]:
    """Every option of every config, each once, in a config that has it."""
    result: dict[tuple[object, ...], tuple[dict[str, Any], Place]] = {}
    for row in zip_longest(*choices().values()):
        chosen = [choice for choice in row if choice is not None]
        plain = config(*chosen, *(f"{key}=FILE" for choice in chosen for key in left_to_the_user(choice)))
        for place in places(plain):
            result.setdefault(option(plain, place), (plain, place))
    return list(result.values())


def check(plain: dict[str, Any], role: object) -> None:
    """What a run does with a config before it reads data, for one top-level key."""
    typed = RunConfig.of(plain)
    node = getattr(typed, str(role))
    if role == "batching":
        build_batching(node, [])
    elif role == "features":
        for name, feature in node.items():
            build(feature, f"features.{name}", {}, [], TokenFeature)
    elif role == "search":
        if node is not None and node.plots is not None:
            build(node.plots, "search.plots", {}, [], Plots)
    elif role in WAITING:
        Factory[Any].of(node, str(role), [], WAITING[role])
    elif role in BUILT and node is not None:
        build(node, str(role), {}, [], BUILT[role])


def is_nonsense(value: object) -> bool:
    """Whether no option takes a value."""
    if isinstance(value, str):
        return value in CONTROLS or len(value) > 10**4
    return type(value) in (int, float) and value not in (0, -1, 0.5, 2**31)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_option_takes_a_hostile_value_or_refuses_it_in_one_line(part: int) -> None:
    assert len(options()) > 300
    for plain, place in options()[part::PARTS]:
        for value in HOSTILE:
            where = f"{'.'.join(map(str, place))}={quoted(value)}"
            try:
                check(changed(plain, place, value), place[0])
            except HydromelError as error:
                line = str(error)
                assert line.isprintable(), (where, line)
                assert len(line) < 1500, (where, line)
            except Exception as error:
                raise AssertionError(where) from error
            else:
                assert not is_nonsense(value), f"{where} was accepted"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (PositiveFloat, [1e-30, 1, 1e9], [0.0, 1e-31, 1.1e9, float("nan"), True]),
        (NonNegativeFloat, [0.0, 1e-30, 1e9], [-1.0, 1e-320, 1e10, float("inf")]),
        (Fraction, [0, 0.5], [1.0, 1e-320, -0.1, float("nan")]),
        (Text, ["label", "\u00e9 \u00a0", "\u4e2d"], ["", " ", "a\nb", "\t", "\u2028", "\ud800", "x" * 201]),
        (Name, ["conll-2003", "a_b.c+d", "\u00e9t\u00e9"], [".", "..", "../x", "a/b", "a\\b", " a", "a\n", ""]),
        (FilePath, ["a/../b", "x~", "sqlite:///x.db"], ["", "~", "a\0", "a\n", "~nobody-of-that-name", "x" * 4097]),
        (Module, ["my_parts", "a.b", "a.b."], ["", "a b", ".a", "a..b", "os;x"]),
        (Encoding, ["utf-8", "UTF_16", "latin1", "cp037"], ["punycode", "idna", "base64", "undefined", "utf-7", "a\0"]),
    ],
)
def test_kinds_of_values(kind: Any, good: list[object], bad: list[object]) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    for value in good:
        adapter.validate_python(value, strict=True)
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value, strict=True)


def test_values_are_quoted_in_part() -> None:
    assert quoted("x" * 10**6) == f"'{'x' * 59}..."
    assert quoted(10**5000) == "a number of thousands of digits"
    assert shortened("a\x1b[31m\n") == r"a\x1b[31m\n"


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_takes_names_of_its_configs(group: str) -> None:
    for value in ("3", "true", "[3]", "[null]", "[[a]]", "../task/tag", "a/../b", "/etc/x", "", "a,3"):
        said = "(give the name of one of its configs. Allowed: |name each tracker once, as in)"
        with pytest.raises(HydromelError, match=rf"^{group}=.*: {said}"):
            for_hydra(f"{group}={value}")
    if group in NULLABLE:
        assert for_hydra(f"{group}=null") == [f"~{group}"]
    else:
        with pytest.raises(HydromelError, match=f"^{group}=null: give the name"):
            for_hydra(f"{group}=null")
    for override in (f"{group}=name", f"{group}=[a,b]", f"{group}=a,b", f"{group}=glob(*)", f"~{group}"):
        if group != "tracker" or override != "tracker=[a,b]":  # several trackers
            assert for_hydra(override) == [override]


@pytest.mark.parametrize(
    "override",
    [
        "encoder=../task/tag",
        "~encoder",
        "=3",
        "seed",
        "seed=" + "9" * 5000,
        "seed=" + "[" * 2000,
        "data_dir=\ud800",
        "train.epochs='${x}'",
        "seed=${seed}",
        "seed=${oc.env:NOT_SET_HERE}",
        "data_dir='${'",
        "features.words=chars",
        "run_plots={_target_: runner.tracking.tracker.NoTracker}",
        "run_plots={_target_: runner.cli.train.main}",
        "batching={_target_: runner.batching.shuffled.Shuffled}",
        "encoder={_target_: runner.embeddings.word.WordEmbedding}",
        "hydra=3",
        "hydra/launcher=null",
        f"data_dir={'x' * 10**5}",
        f"encoder={'x' * 10**4}",
        f"{'x' * 10**4}=3",
    ],
    ids=lambda override: ascii(override)[:60],
)
def test_the_command_line_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(HydromelError) as error:
        Components.of(compose_config([override]))
    assert len(" ".join(str(error.value).split())) < 1500


def test_a_group_that_may_be_left_out_takes_null() -> None:
    composed = compose_config(["experiment=null", "search=null", "metric=null"])
    assert (composed.metric, composed.search) == (None, None)


def test_the_command_says_what_hydra_cannot_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "damaged.yaml").write_text("a: [\n")
    (tmp_path / "encoder" / "list.yaml").write_text("- 1\n")
    (tmp_path / "encoder" / "binary.yaml").write_bytes(b"\xff\xfe\0")
    for arguments in (
        ["encoder=null"],
        ["encoder=../task/tag"],
        *(["--config-dir", str(tmp_path), f"encoder={name}"] for name in ("damaged", "list", "binary")),
    ):
        monkeypatch.setattr(sys, "argv", ["hydromel", *arguments])
        with pytest.raises(SystemExit) as exit_:
            command.main()
        lines = capfd.readouterr().err.splitlines()
        assert (exit_.value.code, len(lines)) == (1, 1), lines
        assert lines[0].startswith("error: ")
    assert not any(path.is_file() for path in (tmp_path / "runs").rglob("*"))


PLUGIN = """
class Empty:
    pass

class Unfit:
    def __init__(self, *, input_size: int, causal: bool) -> None:
        pass

def function(*, params):
    return 3
"""


def test_a_class_of_a_plugin_is_checked_by_the_protocol_of_its_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unfit_parts.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = {**config(), "plugins": ["unfit_parts"]}
    node = {"_target_": "unfit_parts.Empty"}
    for role, fault in {
        "task": "lacks count, encode, head, target_vocab, which Task in ",
        "dataset": "lacks fingerprint, read, which Corpus in ",
        "embedding": "is not a torch.nn.modules.module.Module",
        "schedule": "lacks factor, observe, restore, state, which Schedule in ",
        "tracker": "lacks check, deliver, describe, target, which Tracker in ",
        "run_plots": "lacks draw, which Plots in ",
        "metric": "lacks compute, start, update, which Metric in ",
    }.items():
        with pytest.raises(HydromelError, match=f"^{role}: Empty {fault}"):
            Components.of(RunConfig.of({**plain, role: node}))
    with pytest.raises(HydromelError, match=r"^encoder: Unfit is not a torch.*Module$"):
        Components.of(RunConfig.of({**plain, "encoder": {"_target_": "unfit_parts.Unfit"}}))
    components = Components.of(RunConfig.of({**plain, "optimizer": {"_target_": "unfit_parts.function"}}))
    with pytest.raises(HydromelError, match=r"^optimizer: int is not a torch.*Optimizer$"):
        components.optimizer(params=[])
    sys.modules.pop("unfit_parts", None)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(
        HydromelError, match=r"init_from=.*: Input should be a path; a name in it has more than 255 bytes"
    ):
        run_config(f"init_from=runs/{'x' * 300}/a")


def test_whole_numbers_are_rates_of_locked_dropout() -> None:
    parts(run_config("task=tag", "encoder=conv", "encoder.locked_dropout=0"))
