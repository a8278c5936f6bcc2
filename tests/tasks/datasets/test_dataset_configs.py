"""The data set configs: they are valid, every line has a comment, and mistakes give one-line errors."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from runner.common.errors import HydromelError
from runner.config.instantiate import build

FILES = {
    path.stem: path
    for path in sorted((Path(__file__).parents[3] / "configs" / "dataset").glob("*.yaml"))
    if not path.stem.startswith("stdlib_")
}
OWN = ("columns_file", "conllu", "csv", "jsonl", "labelled", "parquet", "text", "tsv")
GIVEN = {"parquet": {"columns": {"tokens": "text"}}, "hub": {"path": "owner/set", "columns": {"tokens": "text"}}}


def node(name, **overrides):
    root = OmegaConf.create({"data_dir": "/data", "dataset": OmegaConf.load(FILES[name])})
    return OmegaConf.to_container(root.dataset, resolve=True, throw_on_missing=False) | overrides


def test_all_are_here():
    assert set(OWN) < set(FILES)
    assert len(FILES) >= 30


@pytest.mark.parametrize("name", FILES)
def test_the_builder_accepts_it(name):
    corpus = build(node(name, **({"train": "mine"} if name in OWN else {}), **GIVEN.get(name, {})), "dataset", {})
    assert corpus.name == name
    assert callable(corpus.read)
    assert callable(corpus.fingerprint)


@pytest.mark.parametrize("name", FILES)
def test_every_line_has_a_comment(name):
    text = FILES[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert all("# " in line for line in text.splitlines())


@pytest.mark.parametrize("name", OWN)
def test_own_files_must_be_named(name):
    with pytest.raises(HydromelError, match=r"^dataset\.train is missing; give dataset\.train=VALUE"):
        build(node(name), "dataset", {})


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("wnut17", {"span_scheme": "BIOE"}),
        ("wnut17", {"columns": {"tokens": "0"}}),
        ("wnut17", {"separator": "comma"}),
        ("sst2", {"valid_fraction": 1.0}),
        ("sst2", {"label_part": "half"}),
        ("csv", {"train": "mine", "delimiter": "::"}),
        ("text", {"train": "mine", "unit": "line"}),
        ("ud_ewt", {"span_scheme": "BIO"}),
        ("trec_hub", {"cut": "random"}),
    ],
)
def test_values_out_of_range(name, overrides):
    key = "columns" if "columns" in overrides else list(overrides)[-1]
    with pytest.raises(HydromelError, match=rf"^dataset\.{key}"):
        build(node(name, **overrides), "dataset", {})
