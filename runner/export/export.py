"""Exporting a run: its program is traced, written, compared with the run, and put in place if it agrees."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from runner.export.programs import LinesProgram, Part, Program, RowsProgram, program_of
from runner.export.real_rows import BATCH, Padding, RealRows, outputs_of_run
from runner.inference.predictions import predict
from runner.inference.trained import TrainedModel
from runner.interfaces import InputKind
from runner.ragged.ragged import Ragged

SPEED_ROWS = 512  # rows that speeds are measured on, at most
LM_ROWS = 40  # rows of a language model that are compared, at most: each has a number for every string at every token


@dataclass(frozen=True)
class Measured:
    """The agreement, quality, speed and size of an exported file, or of the run itself."""

    name: str
    compared: Comparison | None  # None: the run itself
    quality: float | None  # the run's main figure on the split; None of a language model's step
    rows_per_second: float | None
    size: int  # of the file, in bytes


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
    measures = trained.measures.start(trained.vocabs)
    with _temporary(path) as temporary:
        write(program, trace(program), form, temporary)
        run = opened(form, temporary)
        found = compare(program, run, real, chosen, expected, seed)
        if found.leaks:
            worst = "; ".join(map(str, found.leaks.values()))
            raise HydromelError(f"{path} was not written, since it does not compute what the run does: {worst}")
        results = [
            Measured("run", None, _own_quality(program, real), _own_speed(program, real), checkpoint_size),
            _measure(f"{form}, float32", program, real, run, found, temporary),
        ]
        if int8:
            quantize(temporary, temporary)
            run = opened(form, temporary)
            found = compare(program, run, real, chosen, expected, seed)
            results.append(_measure(f"{form}, int8", program, real, run, found, temporary))
        content = temporary.read_bytes()
        figures = {"split": real.name, "measured": {result.name: _figures(result, measures.main) for result in results}}
        described = manifest(trained, program, form, content, found, figures)
        write_text(manifest_path(path), to_json(described, ascii_only=False))
        temporary.replace(path)
    return Exported(path, program, real, measures.main, results)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, with the same ending, which is removed in the end."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _figures(result: Measured, main: str) -> dict[str, object]:
    return {main: result.quality, "rows_per_second": result.rows_per_second, "bytes": result.size}


def _measure(name: str, program: Program, real: RealRows, run: Run, found: Comparison, file: Path) -> Measured:
    quality = _quality(program, real, _answers(program, real, run)) if isinstance(program, RowsProgram) else None
    return Measured(name, found, quality, _speed(program, real, run), file.stat().st_size)


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


def _speed_batches(real: RealRows) -> list[np.ndarray]:
    batches = [*real.batches(BATCH)]
    step = max(1, len(batches) * BATCH // SPEED_ROWS)
    return batches[::step]


def _speed(program: Program, real: RealRows, run: Run) -> float | None:
    """Return the rows per second of a file in batches of similar lengths, with making its inputs; None for steps."""
    if not isinstance(program, RowsProgram | LinesProgram):
        return None
    batches = _speed_batches(real)
    run(real.inputs(batches[0], Padding()))
    started = time.perf_counter()
    for rows in batches:
        run(real.inputs(rows, Padding()))
    return sum(map(len, batches)) / (time.perf_counter() - started)


def _own_speed(program: Program, real: RealRows) -> float | None:
    """Return the same of the run, as `hydromel-predict` computes: packed."""
    batches = _speed_batches(real)
    if not isinstance(program, RowsProgram):
        return None
    predict(real.trained.model, [real.split.select(batches[0])], bf16=False)
    started = time.perf_counter()
    predict(real.trained.model, map(real.split.select, batches), bf16=False)
    return sum(map(len, batches)) / (time.perf_counter() - started)
