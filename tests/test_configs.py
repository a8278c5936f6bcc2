"""Every file under configs/ composes, is documented line by line, and builds where that needs no data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from runner.batching.auto import Auto
from runner.batching.bucketed import Bucketed
from runner.batching.same_length import SameLength
from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.batching.token_budget import TokenBudget
from runner.common.errors import HydromelError
from runner.components.run_components import Components, build_batching, check_fit, check_limits
from runner.config.instantiate import build
from runner.config.saved import locate_classes
from runner.config.schema import RunConfig
from runner.model import build_model
from runner.text.features import BringsVocabulary
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.composed import config, parts, run_config
from tests.helpers.pretrained import save_tiny

ROOT = Path(__file__).parents[1] / "configs"
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.yaml"))
CHOICES = [str(path.with_suffix("")).replace("/", "=") for path in FILES if path.name != "train.yaml"]
WORDS = Vocab((*"abcdefgh",), SPECIALS)
CHARS = Vocab(("ab", "cd"), SPECIALS, alphabet="abcd")


# Strategies with limits of their own, which an experiment's options might replace; `make campaign` takes the others.
LIMITED = {"batching=bucketed", "batching=size1", "batching=token_budget"}


def rare(choice: str) -> Any:
    return pytest.param(choice, marks=pytest.mark.campaign)


def options(group: str) -> list[str]:
    result = sorted(choice for choice in CHOICES if choice.startswith(f"{group}="))
    assert result, group
    return result


def composed(choice: str) -> dict[str, Any]:
    """Files that a config leaves to the user get some name; nothing is read here."""
    fitting = ("task=lm", "task.unit=stream") if choice == "batching=stream" else ()
    if choice == "features=pieces":  # of the tokenizer of a model
        fitting = ("embedding=pretrained_lm", "embedding.path=FILE")
    if choice.startswith("tokenizer="):  # which splits raw text
        fitting = ("dataset=labelled", "dataset.train=FILE")
    return config(choice, *fitting, *(given(key) for key in left_to_the_user(choice)))


@cache
def composed_once(*overrides: str) -> RunConfig:
    """Return a config that several tests read."""
    return run_config(*overrides)


def given(key: str) -> str:
    return f"{key}={'{tokens: text}' if key.endswith('.columns') else 'FILE'}"


def left_to_the_user(choice: str) -> list[str]:
    """`dataset.train`, ...: keys whose value is ???."""
    group = choice.partition("=")[0]

    def missing(node: Any, where: str) -> list[str]:
        if isinstance(node, Mapping):
            return [item for key, value in node.items() for item in missing(value, f"{where}.{key}")]
        return [where] if node == "???" else []

    def missing_in(name: str, where: str) -> list[str]:
        node = yaml.safe_load((ROOT / group / f"{name}.yaml").read_text(encoding="utf-8"))
        parts = [item for item in node.pop("defaults", ()) if isinstance(item, Mapping)]
        inside = {
            key.partition("@")[2]: part for item in parts for key, part in item.items() if key.startswith(f"/{group}@")
        }
        return missing(node, where) + [
            item for at, part in inside.items() for item in missing_in(part, f"{where}.{at}")
        ]

    if choice.startswith("experiment=finetune"):
        return ["embedding.path"]
    return missing_in(choice.partition("=")[2], group) if group in ("dataset", "embedding") else []


def test_there_are_configs() -> None:
    assert len(CHOICES) > 50
    groups = {choice.partition("=")[0] for choice in CHOICES}
    expected = {
        "task",
        "dataset",
        "embedding",
        "encoder",
        "batching",
        "optimizer",
        "schedule",
        "tracker",
        "features",
        "metric",
        "tokenizer",
    }
    assert groups == expected | {"experiment", "run_plots", "search"}
    for group in ("task", "encoder", "batching"):
        assert len(options(group)) >= 3


@pytest.mark.parametrize("choice", CHOICES)
def test_it_composes_and_every_option_is_one_of_the_constructor(choice: str) -> None:
    plain = composed(choice)
    assert plain["choices"][choice.partition("=")[0]] == choice.partition("=")[2]
    Components.of(RunConfig.of(plain))
    assert locate_classes(plain, plain, Path("resolved.yaml"), []) == plain, "a run of it could not be loaded"


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("schedule", options("schedule"))
def test_every_optimizer_runs_under_every_schedule(optimizer: str, schedule: str) -> None:
    node = composed_once(optimizer).resolved["optimizer"]
    layer = nn.Linear(3, 1)
    result = build(node, "optimizer", {"params": layer.parameters()})
    plan = {"total_updates": 3, "updates_per_epoch": 2}
    rates = build(composed_once(schedule).resolved["schedule"], "schedule", plan)
    before = layer.weight.detach().clone()
    for update in range(3):
        for group in result.param_groups:
            group["lr"] = node["lr"] * rates.factor(update)
            assert 0 < group["lr"] <= node["lr"]
        layer(torch.ones(2, 3)).square().mean().backward()
        result.step()
        result.zero_grad()
        rates.observe(float(update))
    assert layer.weight.isfinite().all()
    assert not torch.equal(layer.weight, before)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files that embeddings read."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "vectors.txt").write_text("a 0.5 0.25\nb 1.0 -1.0\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("encoder", options("encoder"))
@pytest.mark.parametrize("embedding", options("embedding"))
def test_every_encoder_builds_on_every_embedding(encoder: str, embedding: str, files: Path) -> None:
    file, more = files / "vectors.txt", []
    if embedding.startswith("embedding=pretrained"):
        pytest.importorskip("transformers", reason="needs the extra `pretrained`")
        family = "gpt2" if embedding == "embedding=pretrained_lm" else "bert"
        file, more = files / family, ["embedding.overlap=4"]
        if not file.exists():
            save_tiny(file, family, with_head=True)
    of_embedding = composed_once(embedding, *more, *(f"{key}={file}" for key in left_to_the_user(embedding)))
    composed = of_embedding.changed(encoder=composed_once(encoder).encoder)
    vocabs = {"words": WORDS, "pos": WORDS, "chars": CHARS, "forms": WORDS, "target": Vocab(("no", "yes"))}
    made = parts(composed)
    brought = {name: part.own_vocab() for name, part in made.features.items() if isinstance(part, BringsVocabulary)}
    model = build_model(made, vocabs | brought)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


@pytest.mark.parametrize("batching", [option for option in options("batching") if option != "batching=stream"])
def test_every_strategy_plans_each_row_once(batching: str) -> None:
    result = build(config(batching)["batching"], "batching", {})
    lengths = np.random.default_rng(1).integers(0, 40, 300)
    for item in result.candidates.values() if isinstance(result, Auto) else [result]:
        updates = item.updates(lengths, 1, 0)
        assert sorted(np.concatenate(updates)) == list(range(300))
        assert all(len(update) for update in updates)


@pytest.mark.parametrize("batching", [item if item in LIMITED else rare(item) for item in options("batching")])
@pytest.mark.parametrize("experiment", options("experiment"))
def test_an_experiment_leaves_a_strategy_what_it_is(experiment: str, batching: str) -> None:
    """Or its options do not fit, which is an error."""
    wanted = [f"{key}=FILE" for key in left_to_the_user(experiment)]
    try:
        chosen = run_config(experiment, batching, *wanted)
        made = build_batching(chosen.batching, [])
        check_fit(parts(chosen).task, made, chosen.max_length)
        check_limits(chosen)
    except HydromelError as error:
        message = str(error)
        fits = "go together" in message or "batching." in message  # streams and rows; an option that others lack
        assert fits, message
        return
    lengths, size = np.random.default_rng(1).integers(1, 40, 300), chosen.batching["batch_size"]
    for item in made.candidates.values() if isinstance(made, Auto) else [made]:
        if isinstance(item, Stream):
            assert item.batch_size == size
            continue
        assert isinstance(item, Batching)
        assert item.micro_batch == 1 or item.name != "size1"
        rows = np.array([len(update) for update in item.updates(lengths, 1, 0)])
        if isinstance(item.plan, TokenBudget):
            places = rows * item.longest(lengths, item.updates(lengths, 1, 0))
            assert places.max() <= np.ceil(size * lengths.mean())
            assert rows.max() > size or size > 300
        else:
            most = min(size, np.bincount(lengths).max() if isinstance(item.plan, SameLength) else 300)
            assert most / 2 < rows.max() <= most if isinstance(item.plan, Bucketed) else rows.max() == most


@pytest.mark.parametrize("choice", [item for item in CHOICES if not item.startswith("experiment=")])
def test_every_option_has_a_comment_on_its_line(choice: str) -> None:
    """Or the list or mapping has one that it lies in; names of classes and of the choice itself need none."""
    path = ROOT / f"{choice.replace('=', '/')}.yaml"
    bare, message = [], None  # `told`: the depth of a commented line that opens a list or mapping
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        stripped, depth = line.strip(), len(line) - len(line.lstrip())
        if not stripped or stripped.startswith("#"):
            continue
        message = None if message is not None and depth <= message else message
        key, _, value = stripped.partition(":")
        opens = not value.partition("#")[0].strip()
        if "#" in stripped:
            message = depth if opens and message is None else message
        elif not opens and key not in ("_target_", "name", "- _self_") and message is None:
            bare.append(f"{path}:{number}: {stripped}")
    assert not bare, "\n".join(bare)
