"""The speeds of a run and of its exported files: medians of interleaved turns over the same batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from runner.common.arrays import IntArray
from runner.export.audit import STEPS, steps
from runner.export.formats import Run
from runner.export.programs import Program, RowsProgram, StepProgram
from runner.export.real_rows import BATCH, Padding, RealRows, outputs_of_run
from runner.inference.generation.language_model import LanguageModel
from runner.inference.predictions import predict
from runner.interfaces import START, State
from runner.ragged.shapes import places_in

TURNS = 3
ROWS, LM_ROWS = 512, 64  # rows that are computed in a turn, at most
Compute = Callable[[IntArray], object]  # given the numbers of some rows


def unit_of(program: Program) -> str:
    """Return the unit of speed: a step of a language model reads one token of each row."""
    return "tokens/s" if isinstance(program, StepProgram) else "rows/s"


def file_computes(program: Program, real: RealRows, run: Run) -> Compute:
    """Return the work of a file, which includes making its padded inputs."""
    if isinstance(program, StepProgram):
        return lambda rows: steps(program, run, real, rows, Padding())
    return lambda rows: run(real.inputs(rows, Padding()))


def run_computes(program: Program, real: RealRows) -> Compute:
    """Return the same work of the run itself, as its commands compute: packed."""
    trained = real.trained
    if isinstance(program, RowsProgram):
        return lambda rows: predict(trained.model, [real.split.select(rows)], bf16=False)
    if not isinstance(program, StepProgram):
        return lambda rows: outputs_of_run(program, real, rows)
    model = LanguageModel(trained, "run", allow_unk=True)

    def step(rows: IntArray) -> None:
        *features, _ = real.inputs(rows, Padding())
        state: State = START
        for place in range(min(features[0].shape[1], STEPS)):
            ids = {name: of[:, place].astype(np.int64) for name, of in zip(program.names, features, strict=True)}
            _, state = model.step(ids, state)

    return step


@torch.inference_mode()
def speeds(program: Program, real: RealRows, computes: Sequence[Compute]) -> list[float]:
    """Return rows (for steps: tokens) per second of each, after a warm-up."""
    batches = [*real.batches(BATCH)]
    batches = batches[:: max(1, len(batches) * BATCH // (ROWS if isinstance(program, RowsProgram) else LM_ROWS))]
    lengths = places_in(real.split.lengths)[np.concatenate(batches)]
    count = np.minimum(lengths, STEPS).sum() if isinstance(program, StepProgram) else len(lengths)
    for compute in computes:
        compute(batches[0])
    seconds: list[list[float]] = [[] for _ in computes]
    for _ in range(TURNS):
        for compute, own in zip(computes, seconds, strict=True):
            started = time.perf_counter()
            for rows in batches:
                compute(rows)
            own.append(time.perf_counter() - started)
    return [float(count) / statistics.median(own) for own in seconds]
