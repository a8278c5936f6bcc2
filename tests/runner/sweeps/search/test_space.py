"""The space of a search: what may vary, and what is said of one that cannot be searched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.common.errors import HydromelError
from runner.components.run_components import Components
from runner.sweeps.search.search import Search
from runner.sweeps.search.space import Choices, Interval, Space
from tests.helpers.composed import run_config

GROUPS = {"encoder": "rnn", "features": "words"}


def test_options_may_be_dotted_or_nested() -> None:
    item = {"low": 0.1, "high": 1.0}
    nested = Space.of({"optimizer": {"lr": item}, "encoder": {"choices": ["rnn", "conv"]}}, GROUPS)
    dotted = Space.of({"optimizer.lr": item, "encoder": {"choices": ["rnn", "conv"]}}, GROUPS)
    assert nested == dotted
    assert nested.groups == {"encoder"}
    assert nested.overrides({"optimizer.lr": 0.5, "encoder": "conv"}) == (["encoder=conv"], {"optimizer.lr": 0.5})


def test_every_name_and_bound_is_probed() -> None:
    space = Space.of({"a.b": {"low": 1, "high": 9}, "encoder": {"choices": ["x", "y", "z"]}}, GROUPS)
    points = list(space.probes())
    assert [point["encoder"] for point in points] == ["x", "y", "z"]
    assert {point["a.b"] for point in points} == {1, 9}


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (Interval(low=1, high=9), [1, 4, 9], [0, 10, 2.5, True, "4", None]),
        (Interval(low=0.0, high=0.6), [0, 0.0, 0.3, 0.6], [-0.1, 0.7, "0.3"]),
        (Interval(low=16, high=64, step=16), [16, 48], [20, 80]),
        (Interval(low=0.1, high=0.7, step=0.2), [0.1, 0.3, 0.7], [0.2]),
    ],
)
def test_what_an_interval_holds_is_what_is_drawn_from(
    interval: Interval, inside: list[Any], outside: list[Any]
) -> None:
    assert all(interval.contains(value) for value in inside)
    assert not any(interval.contains(value) for value in outside)
    drawn = interval.distribution()
    assert all(drawn._contains(drawn.to_internal_repr(value)) for value in inside)


def test_values_of_any_kind_come_back_from_what_the_study_keeps() -> None:
    values = [[3, 4], [3, 4, 5], None, True, 1, 2.5, "mean", {"a": 1}]
    space = Space.of({"encoder.widths": {"choices": values}}, {})
    for value in values:
        kept = json.loads(json.dumps(space.params({"encoder.widths": value})))
        back = space.values(kept)["encoder.widths"]
        assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, "search.space is empty"),
        ({"optimizer": {"lr": 0.1}}, "search.space.optimizer.lr=0.1: give {low: ..., high: ...} or"),
        ({"optimizer": {"lr": {"low": 0.1}}}, "search.space.optimizer.lr.high is missing"),
        ({"a": {"low": 1, "high": 1}}, "search.space.a: low=1 must be below high=1"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "low=0 must be above 0 with log: true"),
        ({"a": {"low": 1, "high": 9, "log": True, "step": 2}}, "exclude each other"),
        ({"a": {"low": 1, "high": 9, "step": 3}}, "high=9 is not low=1 plus a multiple of step=3"),
        ({"a": {"low": 1, "high": "9"}}, "search.space.a.high='9'"),
        ({"a": {"low": 1, "high": 9, "stepp": 2}}, "search.space.a.stepp: unknown option; did you mean 'step'?"),
        ({"a": {"choices": [1]}}, "give two values or more, each once"),
        ({"a": {"choices": [1, 1]}}, "give two values or more, each once"),
        ({"a": {"choices": [1, 2], "low": 3}}, "search.space.a.low: unknown option"),
        ({"encoder": {"low": 1, "high": 2}}, "search.space.encoder: a group takes names"),
        ({"encoder": {"choices": ["rnn", 3]}}, "give names, as in encoder=NAME"),
        ({"encoder": {"choices": ["rnn", "conv x=3"]}}, "give names, as in encoder=NAME"),
    ],
)
def test_a_space_that_cannot_be_searched_is_told_in_one_line(node: dict[str, Any], message: str) -> None:
    with pytest.raises(HydromelError) as error:
        Space.of(node, GROUPS)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_defaults_outside_of_the_space_are_told() -> None:
    here = run_config("encoder=bow")
    space = Space(
        {"optimizer.lr": Interval(low=0.1, high=1.0), "encoder": Choices(choices=["rnn", "bow"])},
        frozenset({"encoder"}),
    )
    with pytest.raises(
        HydromelError,
        match=r"optimizer.lr: from 0.1 to 1.0, but the first trial is the config, with optimizer.lr=0.001",
    ):
        space.defaults(here)
    wider = Space(
        {"optimizer.lr": Interval(low=0.0001, high=1.0), "encoder": space.dimensions["encoder"]}, space.groups
    )
    assert wider.defaults(here) == {"optimizer.lr": 0.001, "encoder": "bow"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.dropout=1.5", "encoder.dropout=1.5"),
        ("+encoder.typo=3", "encoder.typo: unknown option"),
        ("train.epochs=0", "train.epochs=0"),
        ("+seeed=3", "seeed: unknown option"),
        ("batching.plan.batch_size=x", "batching.plan.batch_size='x'"),
    ],
)
def test_a_config_is_checked_before_data_is_read(override: str, message: str) -> None:
    Components.of(run_config("encoder=rnn", "batching=padmask"))
    with pytest.raises(HydromelError) as error:
        Components.of(run_config("encoder=rnn", "batching=padmask", override))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trials=0", "search.trials=0"),
        ("search.trials=null", "both null"),
        ("search.sampler=grid", "search.sampler='grid'"),
        ("search.timeout_minutes=-1", "search.timeout_minutes=-1"),
        ("+search.trails=3", "search.trails: unknown option; did you mean 'trials'?"),
    ],
)
def test_options_of_a_search_are_checked(override: str, message: str) -> None:
    with pytest.raises(HydromelError) as error:
        Search.of(["search=optuna", override], [])
    assert message in str(error.value)
