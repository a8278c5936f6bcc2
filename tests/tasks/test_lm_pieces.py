"""Language models over subword pieces: word and character figures independent of the pieces; a run and its prompts."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from runner.common.errors import HydromelError
from runner.common.run_schema import RESOLVED
from runner.components.measures import started
from runner.data.numericalize import columns_of
from runner.inference.generation.language_model import LanguageModel
from runner.inference.trained import TrainedModel
from runner.interfaces import Metric
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.bpe import decode_pieces
from runner.text.features import Bpe
from runner.text.vocab import EOS
from tests.helpers.composed import config, label_files, run, tag_files
from tests.helpers.target_batches import lm

LINES = ["the cat sat on the mat", "", "naïve cats sat", "x", "", "the 戦 mat ."]
TABLE = pa.table({"tokens": pa.array([line.split() for line in LINES], pa.list_(pa.string()))})


@pytest.mark.parametrize("unit", ["line", "stream"])
@pytest.mark.parametrize("merges", [0, 3, 200])
def test_words_and_characters_are_counted_whatever_the_pieces(unit: Literal["line", "stream"], merges: int) -> None:
    feature = Bpe(column="tokens", merges=merges, min_count=1)
    vocab = feature.vocab([TABLE])
    vocabs = {"words": vocab, "target": vocab}
    task = lm(unit=unit)
    split = task.encode(columns_of(TABLE, {"words": feature}, vocabs), TABLE, vocabs)
    pieces = split.target.values.numel()
    nats = torch.rand(pieces, dtype=torch.float64)
    metric = started(task.metric, vocabs)
    metric.update(nats, split)
    figures = metric.compute()
    words = sum(len(line.split()) + 1 for line in LINES)
    characters = len("\n".join(LINES)) + 1
    assert figures["word_perplexity"] == pytest.approx(math.exp(float(nats.sum()) / words), rel=1e-12)
    assert figures["bits_per_character"] == pytest.approx(float(nats.sum()) / characters / math.log(2), rel=1e-12)
    assert figures["nll"] == pytest.approx(float(nats.mean()), rel=1e-12)
    assert in_parts(started(task.metric, vocabs), nats, split) == pytest.approx(figures, rel=1e-12)


def in_parts(metric: Metric, nats: torch.Tensor, split: Batch) -> dict[str, float]:
    offsets = split.rows.host_offsets
    for row in range(split.rows.n_rows):
        metric.update(nats[offsets[row] : offsets[row + 1]], split.select(np.array([row])))
    return metric.compute()


@pytest.mark.parametrize("unit", ["line", "stream"])
def test_a_run_knows_every_text_and_goes_on_from_a_prompt(tmp_path: Path, unit: str) -> None:
    for split in ("train", "valid", "test"):
        text = "\n".join(f"the {split} sat on the mat . " * (1 + number % 5) for number in range(40))
        (tmp_path / f"{split}.txt").write_text(text + "\n\n", encoding="utf-8")
    options = ["task=lm", "dataset=text", f"data_dir={tmp_path}", "features=bpe", "features.words.merges=20"]
    options += [f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")]
    options += ["encoder=lstm", "encoder.hidden=8", "train.epochs=1", f"task.unit={unit}", "baselines=false"]
    options += ["batching=stream", "batching.batch_size=2"] if unit == "stream" else ["batching=packed"]
    options += [f"cache_dir={tmp_path / 'cache'}"]
    actual = [run(tmp_path / name, *options) for name in ("first", "second")]
    assert actual[0]["metrics"] == actual[1]["metrics"], "cached and uncached"
    assert actual[0]["vocab"]["oov_rate"]["test"] == {"words": 0.0}
    figures = actual[0]["metrics"]["test"]
    assert figures["word_perplexity"] > figures["perplexity"] > 1
    (tmp_path / "first" / RESOLVED).write_text(
        yaml.safe_dump(config(*options)), encoding="utf-8"
    )  # as the command does
    trained = TrainedModel.load(tmp_path / "first", torch.device("cpu"), None, (), None)
    model = LanguageModel(trained, "run", allow_unk=False)
    prompts = model.prompts(["the 戦 mat", "", "x"])
    assert prompts.unknown == [[], [], []]
    written = [trained.vocabs["words"].decode(row) for row in rows(prompts.ids["words"])]
    assert [row[0] for row in written] == [EOS] * 3
    assert ["".join(decode_pieces(row[1:])) for row in written] == [" the 戦 mat", "", " x"]


def rows(ids: Ragged) -> list[list[int]]:
    ends = ids.rows.host_offsets
    return [ids.values[a:b].tolist() for a, b in pairwise(ends)]


def test_whole_rows_are_classified_by_pieces_and_words_are_not_tagged_by_them(tmp_path: Path) -> None:
    pieces = ["features=bpe", "features.words.merges=10", "encoder=none", "train.epochs=6", "baselines=false"]
    assert run(tmp_path / "labels", *label_files(tmp_path), *pieces)["metrics"]["test"]["accuracy"] > 60
    with pytest.raises(
        HydromelError,
        match=r"^task=tag predicts one tag per word, but features\.words splits words into pieces; use features=words",
    ):
        run(tmp_path / "tags", *tag_files(tmp_path), *pieces)
