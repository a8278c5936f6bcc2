"""Programs compute what their model does, in any batch, width and padding: here as plain modules, without a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.export.audit import Comparison, compare
from runner.export.formats import Arrays, Run, trace
from runner.export.programs import LinesProgram, Part, Program, StepProgram, program_of
from runner.export.real_rows import RealRows, outputs_of_run
from runner.export.speed import file_computes, run_computes, speeds, unit_of
from runner.interfaces import State
from runner.ragged.ragged import Ragged
from tests.helpers.composed import CONFIGS, label_files, pair_files, tag_files
from tests.helpers.pretrained import save_tiny
from tests.helpers.untrained import untrained

SMALL = ("embedding.size=6",)
FORWARD = {
    "rnn-first": ("encoder=rnn", "encoder.cell=rnn", "encoder.hidden=5", "encoder.layers=2", "task.pooling=first"),
    "highway": ("encoder=conv", "encoder.layers=2", "encoder.layer_norm=true", "encoder.shortcut=highway"),
    "rotary": ("encoder=transformer", "encoder.positions=rotary", "encoder.norm=batch", "encoder.score=dot"),
    "additive": ("encoder=transformer", "encoder.positions=learned", "encoder.score=additive"),
    "attention pool": ("encoder=bgru", "encoder.hidden=5", "task.pooling=attention", "task.hidden=[4]"),
    "unit sum": ("encoder=none", "task.pooling=unit_sum"),
    "last": ("encoder=lstm", "encoder.hidden=5", "task.pooling=last"),
}
TAGGERS = {
    "crf": ("task.head=crf", "encoder=conv"),
    "constrained crf": ("task.head=crf", "encoder=none", "task.constraints=both"),
    "constrained softmax": ("encoder=none", "task.constraints=decode"),
    "char conv": ("features=words_chars", "embedding=char_conv", "encoder=none"),
    "char rnn": ("features=words_chars", "embedding=char_rnn", "encoder=none"),
}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return label_files(tmp_path_factory.mktemp("labels"), rows=60)


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tag_files(tmp_path_factory.mktemp("tags"), rows=60)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, rng = tmp_path_factory.mktemp("lines"), np.random.default_rng(1)
    rows = (" ".join(rng.choice([*"abcdefg"], rng.integers(0, 9))) for _ in range(120))
    (folder / "text.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return ["task=lm", "dataset=text", f"dataset.train={folder}/text.txt", "features.words.min_count=1"]


def as_run(program: Program) -> Run:
    def run(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            return [output.numpy() for output in program(*map(torch.from_numpy, inputs))]

    return run


def compared(program: Program, real: RealRows) -> Comparison:
    run = as_run(program)
    rows = real.choose(12, np.random.default_rng(1))
    return compare(program, run, real, rows, outputs_of_run(program, real, rows), seed=1)


def agrees(*options: str, part: str | None = None) -> Program:
    trained = untrained(*options)
    program = program_of(trained, part)  # type: ignore[arg-type]
    found = compared(program, RealRows.read(trained, None))
    assert not found.leaks, [*map(str, found.leaks.values())]
    assert found.compared == 7 * found.rows
    assert found.same + found.ties in (found.compared, 0)
    return program


@pytest.mark.parametrize("encoder", sorted(path.stem for path in (CONFIGS / "encoder").glob("*.yaml")))
def test_every_encoder(labels: list[str], encoder: str) -> None:
    agrees(*labels, f"encoder={encoder}", *SMALL)


@pytest.mark.parametrize("options", FORWARD.values(), ids=FORWARD)
def test_layers_and_poolings(labels: list[str], options: tuple[str, ...]) -> None:
    agrees(*labels, *options, *SMALL)


@pytest.mark.parametrize(
    "options",
    [
        ("embedding=ngrams",),
        ("task.labels=many",),
        ("task.head=hinge",),
        ("task=regress", "task.loss=huber"),
        ("max_length=3", "truncate=both"),
    ],
)
def test_rows(labels: list[str], options: tuple[str, ...]) -> None:
    agrees(*labels, "encoder=bow", *options)


@pytest.mark.parametrize("options", TAGGERS.values(), ids=TAGGERS)
def test_taggers(tags: list[str], options: tuple[str, ...]) -> None:
    agrees(*tags, *options)


@pytest.mark.parametrize("pairs", ["apart", "joined"])
def test_pairs(tmp_path: Path, pairs: str) -> None:
    agrees(*pair_files(tmp_path, rows=60), f"task.pairs={pairs}", "encoder=conv", "encoder.filters=4", *SMALL)


@pytest.mark.parametrize("encoder", ["lstm", "gru", "conv", "none"])
def test_steps_of_a_language_model(lines: list[str], encoder: str) -> None:
    assert isinstance(agrees(*lines, f"encoder={encoder}", *SMALL), StepProgram)


@pytest.mark.parametrize(
    "options", [("encoder=lstm",), ("encoder=transformer", "encoder.memory=4"), ("encoder=conv", "task.cutoffs=[4]")]
)
def test_whole_lines_of_a_language_model(lines: list[str], options: tuple[str, ...]) -> None:
    agrees(*lines, *options, *SMALL, part="lines")


@pytest.mark.parametrize(("part", "unit"), [("step", "tokens/s"), ("lines", "rows/s")])
def test_speed_of_a_language_model(lines: list[str], part: Part, unit: str) -> None:
    trained = untrained(*lines, "encoder=lstm", "encoder.hidden=5", *SMALL)
    program, real = program_of(trained, part), RealRows.read(trained, None)
    rates = speeds(program, real, [run_computes(program, real), file_computes(program, real, as_run(program))])
    assert len(rates) == 2
    assert min(rates) > 0
    assert unit_of(program) == unit


@pytest.mark.parametrize("options", [("task.unit=line",), ("encoder.memory=4",)])
def test_a_model_without_a_step_is_exported_as_lines(lines: list[str], options: tuple[str, ...]) -> None:
    trained = untrained(*lines, "encoder=transformer", *options, *SMALL)
    with pytest.raises(HydromelError, match=r"Transformer carries no state of a fixed size .* add --part lines"):
        program_of(trained, None)
    assert isinstance(program_of(trained, "lines"), LinesProgram)


@pytest.mark.filterwarnings("ignore")  # of transformers
def test_a_pretrained_model_is_refused_in_one_line(labels: list[str], tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra `pretrained`")
    path = save_tiny(tmp_path / "bert", "bert")
    trained = untrained(
        *labels, "embedding=pretrained", f"embedding.path={path}", "embedding.overlap=4", "encoder=none"
    )
    with pytest.raises(HydromelError, match="embedding=pretrained is exported as no program; hydromel-predict"):
        program_of(trained, None)


class _Leaky(nn.Module):
    """An encoder that divides by the width of the batch."""

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        return x.with_values(x.values + x.filled(0.0).sum(1, keepdim=True) / x.rows.width), None


def test_a_leak_is_named(labels: list[str]) -> None:
    trained = untrained(*labels, "encoder=none", *SMALL)
    program = program_of(trained, None)
    program.model.encoder = _Leaky()
    found = compared(program, RealRows.read(trained, None))
    assert "`scores` of row " in str(found.leaks["scores"])
    assert " rows of width " in str(found.leaks["scores"])


class _OnHost(nn.Module):
    """An encoder that reads lengths on the host."""

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        return x.map(lambda values: values / float(x.rows.host_lengths.max())), None


def test_a_part_that_cannot_be_traced_is_named(labels: list[str]) -> None:
    program = program_of(untrained(*labels, "encoder=none", *SMALL), None)
    program.model.encoder = _OnHost()
    with pytest.raises(HydromelError, match=r"_OnHost cannot be exported: it reads the lengths of rows on the host"):
        trace(program)


def test_a_part_of_another_task_is_refused(labels: list[str]) -> None:
    with pytest.raises(HydromelError, match="--part lines is for language models; this run has task=classify"):
        program_of(untrained(*labels, "encoder=bow"), "lines")
