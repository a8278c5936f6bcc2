"""A run's result: its keys are the documented ones, and its figures are what really happened."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner.batching.strategy import Batching
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.records import (
    PADDING_CAUSES,
    RESULT_KEYS,
    SECONDS_KEYS,
    ArithmeticRecord,
    CharactersRecord,
    LengthRecord,
    MemoryRecord,
    SpeedRecord,
    TokensRecord,
)
from runner.config.instantiate import build
from runner.config.schema import RunConfig
from runner.text.blocks import Blocks
from tasks.datasets.base import FilesCorpus
from tests.helpers.composed import config, data_of, label_files, run, tag_files

ROOT = Path(__file__).parents[3]
SMALL = ("encoder=rnn", "encoder.hidden=4", "embedding.size=4", "train.epochs=2", "batching.batch_size=16")
OPTIMIZERS = sorted(path.stem for path in (ROOT / "configs" / "optimizer").glob("*.yaml"))
SCHEDULES = sorted(path.stem for path in (ROOT / "configs" / "schedule").glob("*.yaml"))


def test_the_keys_are_the_documented_ones(tmp_path: Path) -> None:
    run(tmp_path / "run", *tag_files(tmp_path), *SMALL, "embedding=char_conv")
    result = json.loads((tmp_path / "run" / run_schema.RESULT).read_text(encoding="utf-8"))
    documented = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert set(result) == set(RESULT_KEYS)
    sections = {
        "speed": SpeedRecord.__annotations__,
        "tokens": TokensRecord.__annotations__,
        "padding": PADDING_CAUSES,
        "seconds": SECONDS_KEYS,
        "memory": MemoryRecord.__annotations__,
        "characters": CharactersRecord.__annotations__,
        "arithmetic": ArithmeticRecord.__annotations__,
    }
    assert set(result["speed"]["by_length"][0]) == set(LengthRecord.__annotations__)
    for section, keys in sections.items():
        assert set(result[section]) == set(keys) - {"pieces_per_s"}  # of models that read pieces of words
        assert all(f"`{section}.{key}`" in documented for key in keys), section
    assert all(f"`{key}`" in documented or f"`{key}." in documented for key in RESULT_KEYS)


@pytest.mark.parametrize("strategy", ["padmask", "bucketed", "packed", "size1", "same_length", "token_budget"])
def test_tokens_are_those_that_lay_in_memory(tmp_path: Path, strategy: str) -> None:
    options = [*tag_files(tmp_path), *SMALL[:-1], f"batching={strategy}"]
    options += ["batching.plan.max_tokens=64"] if strategy == "token_budget" else ["batching.batch_size=16"]
    result = run(tmp_path / "run", *options)
    plain = config(*options, "cache_dir=null")
    batching: Batching = build(plain["batching"], "batching", {})
    train = data_of(RunConfig.of(plain)).splits["train"]
    real = padded = updates = 0
    for epoch in range(2):
        for rows in batching.updates(train.rows.host_lengths, plain["seed"], epoch):
            updates += 1
            for batch in batching.micro_batches(train, rows):
                real, padded = real + batch.real_tokens, padded + batch.padded_tokens
    assert result["tokens"]["real"] == result["tokens"]["supervised"] == real == 2 * train.real_tokens
    assert result["tokens"]["padded"] == sum(result["padding"].values()) == padded
    assert result["updates"]["count"] == updates
    if strategy in ("packed", "size1", "same_length"):
        assert padded == 0
    if strategy == "padmask":
        assert padded > real
    assert sum(result["seconds"][phase] for phase in SECONDS_KEYS if phase != "total") > 0


def test_times_by_length_cover_every_timed_update(tmp_path: Path) -> None:
    options = [*tag_files(tmp_path), *SMALL, "batching=bucketed", "batching.width_multiple=8", "batching.micro_batch=3"]
    result = run(tmp_path / "run", *options, "train.warmup_updates=3")
    plain = config(*options, "cache_dir=null")
    batching: Batching = build(plain["batching"], "batching", {})
    train = data_of(RunConfig.of(plain)).splits["train"]
    updates = [update for epoch in (0, 1) for update in batching.updates(train.rows.host_lengths, plain["seed"], epoch)]
    expected: dict[int, list[int]] = {}
    for rows in updates[3:]:
        longest = 2 ** math.ceil(math.log2(train.rows.host_lengths[rows].max()))
        batches = list(batching.micro_batches(train, rows))
        counts = 1, sum(b.real_tokens for b in batches), sum(b.real_tokens + b.padded_tokens for b in batches)
        expected[longest] = [a + b for a, b in zip(expected.get(longest, [0, 0, 0]), counts, strict=True)]
    actual = result["speed"]["by_length"]
    assert {item["longest"]: [item["updates"], item["real_tokens"], item["places"]] for item in actual} == expected
    assert len(expected) > 2
    assert [item["longest"] for item in actual] == sorted(expected)
    phases = sum(result["seconds"][phase] for phase in ("data", "forward", "backward", "optimizer"))
    seconds = sum(item["seconds"] for item in actual)
    assert 0 < seconds < phases  # which have the warm-up too
    assert seconds == pytest.approx(result["speed"]["timed_updates"] / result["speed"]["updates_per_s"], rel=0.05)


@pytest.mark.parametrize("embedding", ["char_conv", "char_rnn"])
def test_characters_are_those_of_the_distinct_forms_of_each_batch(tmp_path: Path, embedding: str) -> None:
    options = [*tag_files(tmp_path), *SMALL, f"embedding={embedding}", "embedding.max_characters=3"]
    options += ["batching=padmask", "batching.micro_batch=5", "train.warmup_updates=3"]
    result = run(tmp_path / "run", *options)
    plain = config(*options, "cache_dir=null")
    batching: Batching = build(plain["batching"], "batching", {})
    data = data_of(RunConfig.of(plain))
    forms, train, expected = data.vocabs["chars"].tokens, data.splits["train"], 0
    for epoch in range(2):
        for rows in batching.updates(train.rows.host_lengths, plain["seed"], epoch):
            for batch in batching.micro_batches(train, rows):
                ids = set(batch.features["chars"].tokens().tolist())
                expected += sum(2 + min(3, len(forms[item])) for item in ids)
    assert result["characters"] == {"real": expected, "padded": 0}


def test_truncation_is_counted(tmp_path: Path) -> None:
    data = tag_files(tmp_path)
    whole = run(tmp_path / "whole", *data, *SMALL)
    cut = run(tmp_path / "cut", *data, *SMALL, "max_length=5")
    assert cut["tokens"]["truncated"] == (whole["tokens"]["real"] - cut["tokens"]["real"]) / 2 > 0


def test_oov_rate_and_majority(tmp_path: Path) -> None:
    for split, lines in {"train": "1 a a b\n1 a b\n0 b c\n", "valid": "1 a z\n", "test": "1 a b z z\n0 c\n"}.items():
        (tmp_path / f"{split}.txt").write_text(lines, encoding="utf-8")
    data = [
        "task=classify",
        "dataset=sst2",
        f"data_dir={tmp_path}",
        *(f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")),
    ]
    result = run(tmp_path / "run", *data, *SMALL)  # c is seen once only: unknown
    assert result["vocab"]["oov_rate"] == {
        "train": {"words": pytest.approx(1 / 7)},
        "valid": {"words": 0.5},
        "test": {"words": 3 / 5},
    }
    assert result["majority"]["accuracy"] == 50.0


def test_rows_of_length_zero_are_kept(tmp_path: Path) -> None:
    result = run(tmp_path / "run", *label_files(tmp_path), *SMALL)  # the first line of each file has no text
    assert sum(pair["count"] for pair in result["metrics"]["test"]["confusion"]) == 40


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path: Path) -> None:
    options = ("optimizer=sgd", "optimizer.lr=1e9", "train.clip_norm=null", "task.pooling=sum", "encoder=conv")
    with pytest.raises(HydromelError, match=r"the loss is (nan|inf) at update \d+ \(epoch \d; rows \d+.* lengths \d+"):
        run(tmp_path / "run", *label_files(tmp_path), *SMALL[2:], *options)
    status = json.loads((tmp_path / "run" / run_schema.RUN).read_text(encoding="utf-8"))
    assert status["status"] == run_schema.FAILED
    assert "the loss is" in status["error"]
    assert not (tmp_path / "run" / run_schema.RESULT).exists()


def test_patience_and_limits_end_the_training(tmp_path: Path) -> None:
    data = tag_files(tmp_path)
    still = run(tmp_path / "still", *data, *SMALL, "optimizer.lr=1e-30", "train.epochs=9", "train.patience=2")
    assert still["updates"]["epochs"] == 3  # the first is the best, then two without improvement
    cut = run(tmp_path / "cut", *data, *SMALL, "train.max_updates=11")
    assert cut["updates"]["count"] == 11
    assert cut["metrics"]["valid"]["accuracy"] > 0


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    options = (*tag_files(tmp_path), *SMALL, "optimizer=sgd", "optimizer.lr=1.0", "train.max_updates=1")
    options = (*options, "optimizer.momentum=0.0", "optimizer.weight_decay=0.0", "dtype=float64")
    run(tmp_path / "still", *options, "optimizer.lr=1e-30")
    moved = {}
    for norm in ("null", "0.01"):
        run(tmp_path / norm, *options, f"train.clip_norm={norm}")
        old, new = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("still", norm))
        steps = [(new[name] - old[name]).square().sum() for name in old if name.startswith("model.")]
        moved[norm] = math.sqrt(sum(steps))
    assert moved["null"] > 0.02
    assert moved["0.01"] == pytest.approx(0.01, rel=1e-3)


def test_the_recorded_rate_is_that_of_the_update(tmp_path: Path) -> None:
    options = ("schedule=linear", "schedule.warmup=0", "optimizer.lr=1.0", "train.log_every=1", "train.max_updates=10")
    run(tmp_path / "run", *label_files(tmp_path), "encoder=bow", "batching.batch_size=8", *options)
    lines = (tmp_path / "run" / run_schema.METRICS).read_text(encoding="utf-8").splitlines()
    rates = [record["train/lr"] for line in lines if "train/lr" in (record := json.loads(line)["metrics"])]
    assert rates == pytest.approx([1 - step / 10 for step in range(10)])


def test_there_are_optimizers_and_schedules() -> None:
    assert {"sgd", "adam", "adamw", "adadelta", "rmsprop", "asgd", "nt_asgd"} == set(OPTIMIZERS)
    assert {"constant", "linear", "cosine", "step", "plateau"} == set(SCHEDULES)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(tmp_path: Path, optimizer: str) -> None:
    run(tmp_path / "run", *label_files(tmp_path), "encoder=bow", f"optimizer={optimizer}", "train.epochs=5")
    lines = (tmp_path / "run" / run_schema.METRICS).read_text(encoding="utf-8").splitlines()
    losses = [record["train/loss"] for line in lines if "train/loss" in (record := json.loads(line)["metrics"])]
    assert losses[-1] < losses[0]


def test_schedules_by_hand() -> None:
    counts = {"total_updates": 10, "updates_per_epoch": 4}

    def schedule(name: str, **changed: float) -> object:
        node = config(f"schedule={name}")["schedule"] | changed
        return build(node, "schedule", counts)

    def factors(name: str, **changed: float) -> list[float]:
        result = schedule(name, **changed)
        return [round(result.factor(update), 6) for update in range(10)]  # type: ignore[attr-defined]

    assert factors("constant") == [1.0] * 10
    assert factors("linear", warmup=2) == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert factors("cosine") == [round((1 + math.cos(math.pi * n / 10)) / 2, 6) for n in range(10)]
    assert factors("step", gamma=0.5) == [1.0] * 4 + [0.5] * 4 + [0.25] * 2
    plateau = schedule("plateau", patience=1)
    seen = []
    for quality in (1.0, 2.0, 2.0, 1.5, 1.0, 3.0):
        plateau.observe(quality)  # type: ignore[attr-defined]
        seen.append(plateau.factor(0))  # type: ignore[attr-defined]
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_a_cache_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    options = [*tag_files(tmp_path), f"cache_dir={tmp_path / 'cache'}"]

    def data() -> tuple[bool, list[int]]:
        plain = config(*options)
        loaded = data_of(RunConfig.of(plain))
        return loaded.cached, loaded.splits["train"].features["words"].values.tolist()

    cached, ids = data()
    assert not cached
    assert data() == (True, ids)
    (file,) = (tmp_path / "cache").glob("*.columns")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert data() == (False, ids)
    file.write_bytes(file.read_bytes()[:-9])
    assert data() == (False, ids)
    (tmp_path / "train.conll").write_text("new\tO\n", encoding="utf-8")
    with pytest.raises(HydromelError, match="no tag of the training set"):  # read anew: other content, other key
        data()


def test_predictions_are_written_from_the_cache_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*tag_files(tmp_path), *SMALL, "train.epochs=1", f"cache_dir={tmp_path / 'cache'}"]
    reads: list[str] = []
    read = FilesCorpus.read_blocks

    def counted(self: FilesCorpus) -> dict[str, Blocks]:
        reads.append(self.name)
        return read(self)

    monkeypatch.setattr(FilesCorpus, "read_blocks", counted)

    def written(name: str) -> list[bytes]:
        run(tmp_path / name, *options)
        return [(tmp_path / name / "predictions" / file).read_bytes() for file in ("test.conll", "errors.txt")]

    first = written("a")
    assert len(reads) == 1
    assert written("b") == first
    assert len(reads) == 1
    (file,) = (tmp_path / "cache").glob("*-test.rows")
    for damaged in (b"", file.read_bytes()[:-1]):
        file.write_bytes(damaged)
        assert written(f"c{len(damaged)}") == first
    assert len(reads) == 3


def test_bf16_and_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    result = run(
        tmp_path / "run",
        *tag_files(tmp_path),
        *SMALL,
        "precision=bf16",
        "train.epochs=8",
        "batching.batch_size=4",
        f"threads={before}",
    )
    assert result["provenance"]["threads"] == before
    assert result["metrics"]["test"]["accuracy"] > 60


def test_more_threads_than_cores_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("os.cpu_count", lambda: before)
    for threads in (before, before + 1):
        run(tmp_path / f"{threads}", *tag_files(tmp_path), *SMALL, "train.max_updates=1", f"threads={threads}")
        warned = f"warning: threads={threads}, but this machine has {before} cores" in caplog.text
        assert warned == (threads > before)
    torch.set_num_threads(before)
