"""Exporting a run: its program is traced, written, compared with the run, and put in place if it agrees."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from runner.common.errors import HydromelError
from runner.common.files import to_json, write_text
from runner.data.numericalize import TARGET
from runner.export.audit import Comparison, compare
from runner.export.formats import Format, Run, opened, trace, write
from runner.export.int8 import quantize
from runner.export.manifest import manifest, manifest_path
from runner.export.programs import Part, Program, RowsProgram, program_of
from runner.export.real_rows import BATCH, Padding, RealRows, outputs_of_run
from runner.export.speed import file_computes, run_computes, speeds, unit_of
from runner.inference.predictions import predict
from runner.inference.trained import TrainedModel
from runner.interfaces import InputKind
from runner.ragged.ragged import Ragged

INT8 = "int8"  # in the name of a file's figures
LM_ROWS = 40  # rows of a language model that are compared, at most: each has a number for every string at every token


@dataclass(frozen=True)
class Measured:
    """The agreement, quality, speed and size of an exported file, or of the run itself."""

    name: str
    compared: Comparison | None  # None: the run itself
    quality: float | None  # the run's main figure on the split; None of a language model's step
    size: int  # of the file, in bytes
    speed: float = 0.0  # in rows, or tokens of a language model's steps, per second


@dataclass(frozen=True)
class Exported:
    """An exported file, with what was measured: of the run, of the file and, with --int8, of that in 8 bits."""

    path: Path
    program: Program
    real: RealRows
    figure: str  # name of the quality
    measured: list[Measured]


def export(
    trained: TrainedModel,
    path: Path,
    form: Format,
    part: Part | None,
    int8: bool,
    split: str | None,
    rows: int,
    seed: int,
    checkpoint_size: int,
) -> Exported:
    """Write a trained model to `path`, with its JSON beside it, after a comparison on `rows` rows of a split.

    Raises:
        HydromelError: a part that cannot be exported; or the file differs from the run: then nothing is left at `path`.
    """
    program = program_of(trained, part)
    real = RealRows.read(trained, split)
    rng = np.random.default_rng(seed)
    chosen = real.choose(min(rows, LM_ROWS) if not isinstance(program, RowsProgram) else rows, rng)
    expected = outputs_of_run(program, real, chosen)
    main = trained.measures.start(trained.vocabs).main
    with _temporary(path) as temporary:
        write(program, trace(program), form, temporary)
        run = opened(form, temporary)
        found = compare(program, run, real, chosen, expected, seed)
        if found.leaks:
            worst = "; ".join(map(str, found.leaks.values()))
            raise HydromelError(f"{path} was not written, since it does not compute what the run does: {worst}")
        measured = [
            Measured("run", None, _own_quality(program, real), checkpoint_size),
            Measured(f"{form}, float32", found, _file_quality(program, real, run), temporary.stat().st_size),
        ]
        computes = [run_computes(program, real), file_computes(program, real, run)]
        if int8:
            quantize(temporary, temporary)
            run = opened(form, temporary)
            found = compare(program, run, real, chosen, expected, seed)
            size = temporary.stat().st_size
            measured.append(Measured(f"{form}, {INT8}", found, _file_quality(program, real, run), size))
            computes.append(file_computes(program, real, run))
        rates = speeds(program, real, computes)
        measured = [replace(result, speed=rate) for result, rate in zip(measured, rates, strict=True)]
        content = temporary.read_bytes()
        unit = unit_of(program)
        figures = {"split": real.name, "measured": {result.name: _figures(result, main, unit) for result in measured}}
        described = manifest(trained, program, form, content, found, figures)
        write_text(manifest_path(path), to_json(described, ascii_only=False))
        temporary.replace(path)
    return Exported(path, program, real, main, measured)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, with the same ending, which is removed in the end."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _figures(result: Measured, main: str, unit: str) -> dict[str, object]:
    return {main: result.quality, unit.replace("/s", "_per_second"): result.speed, "bytes": result.size}


def _file_quality(program: Program, real: RealRows, run: Run) -> float | None:
    return _quality(program, real, _answers(program, real, run)) if isinstance(program, RowsProgram) else None


def _answers(program: Program, real: RealRows, run: Run) -> Tensor:
    """Return a file's answers for all rows of the split, in its order: packed if they are per token."""
    parts: dict[int, np.ndarray] = {}
    for rows in real.batches(BATCH):
        answers = run(real.inputs(rows, Padding()))[0]
        for row, of_row in zip(rows.tolist(), answers, strict=True):
            parts[row] = (
                of_row[: int(real.lengths(row)[0])]
                if isinstance(program, RowsProgram) and program.per_token
                else of_row[None]
            )
    return torch.from_numpy(np.concatenate([parts[row] for row in range(real.n_rows)]))


def _quality(program: Program, real: RealRows, answers: Tensor) -> float | None:
    """Return the run's main figure of the answers; None if it is measured by losses."""
    trained = real.trained
    kind: InputKind = trained.task.metric.input_kind
    values: Mapping[InputKind, Tensor | Ragged] = {kind: answers}
    vocabs = {**trained.vocabs, TARGET: trained.vocabs[TARGET]}
    figures = trained.measures.of_split(values, real.split, vocabs)
    value = figures.get(trained.measures.main)
    return float(value) if isinstance(value, float) else None


def _own_quality(program: Program, real: RealRows) -> float | None:
    if not isinstance(program, RowsProgram):
        return None
    answers = predict(real.trained.model, map(real.split.select, real.batches(BATCH)), bf16=False)
    return _quality(program, real, torch.from_numpy(answers.values))
