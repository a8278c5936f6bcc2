"""The comparison of an exported file with its run, on real rows: at several widths, batch sizes and paddings.

Scores must agree within `TOLERANCE`, and answers must be those that the run's own head gives for the file's scores.
So a file differs from its run only by rounding, and an answer only where two are equally good within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runner.batching.plan import cut
from runner.common.arrays import IntArray
from runner.export.formats import Arrays, Run
from runner.export.programs import Program, RowsProgram, StepProgram
from runner.export.real_rows import Outputs, Padding, RealRows, decoded

TOLERANCE = (
    1e-5  # of the largest number of an output, and of 1: float32 has 7 digits, and programs add up in another order
)
# rows of a batch, places beyond the longest row, and whether padding holds other ids than those of padding
VARIATIONS = ((1, 0, False), (1, 9, True), (2, 1, True), (7, 0, True), (7, 40, True), (32, 0, False), (32, 3, True))
STEPS = 20  # tokens of a row that a step program reads


@dataclass(frozen=True)
class Leak:
    """The largest difference of an output that rounding does not explain."""

    output: str
    row: int
    length: int  # of the row, in tokens
    width: int  # of the batch
    batch: int
    difference: float

    def __str__(self) -> str:
        return (
            f"`{self.output}` of row {self.row + 1} ({self.length} tokens) differs by {self.difference:.3g} in a batch "
            f"of {self.batch} rows of width {self.width}"
        )


@dataclass
class Comparison:
    """The results of a comparison so far."""

    rows: int = 0  # distinct rows that were compared
    compared: int = 0  # rows in all batches
    widths: list[int] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)  # largest difference from the run, by output
    between: dict[str, float] = field(
        default_factory=dict
    )  # largest difference between two batches of the file, by output
    tolerances: dict[str, float] = field(default_factory=dict)
    same: int = 0  # rows with the run's answers
    ties: int = 0  # rows with other answers that are equally good within rounding
    changed: int = 0  # rows with other answers
    leaks: dict[str, Leak] = field(default_factory=dict)  # the worst, by output

    @property
    def largest(self) -> float:
        return max(self.differences.values(), default=0.0)


def compare(
    program: Program, run: Run, real: RealRows, rows: IntArray, expected: Mapping[int, Outputs], seed: int
) -> Comparison:
    """Compare the outputs of a file with those of its run (`expected`) for the chosen rows, in many batches."""
    rng = np.random.default_rng(seed)
    found, first = Comparison(rows=len(rows)), dict[tuple[int, str], npt.NDArray[np.generic]]()
    scales = {
        port.name: max(
            (_largest(of_row[port.name]) for of_row in expected.values() if port.name in of_row), default=1.0
        )
        for port in program.outputs
    }
    found.tolerances = {name: TOLERANCE * max(1.0, scale) for name, scale in scales.items()}
    for size, extra, poison in VARIATIONS:
        for part in cut(rng.permutation(rows), size):
            padding = Padding(extra, rng if poison else None)
            width, outputs = _outputs(program, run, real, part, padding)
            found.widths.append(width)
            found.batch_sizes.append(len(part))
            for row, of_row in zip(part.tolist(), outputs, strict=True):
                _compare_row(program, real, found, row, of_row, expected[row], (width, len(part)))
                for name, values in of_row.items():
                    before = first.setdefault((row, name), values)
                    found.between[name] = max(found.between.get(name, 0.0), _difference(values, before))
    return found


def _compare_row(
    program: Program, real: RealRows, found: Comparison, row: int, got: Outputs, want: Outputs, shape: tuple[int, int]
) -> None:
    found.compared += 1
    answer, agrees = program.outputs[0].name, True
    for name, values in got.items():
        wanted = want[name]
        if isinstance(program, RowsProgram) and name == answer and not program.has_numbers:
            continue
        difference = _difference(values, wanted)
        found.differences[name] = max(found.differences.get(name, 0.0), difference)
        if not difference <= found.tolerances[name]:
            agrees = False
            leak = Leak(name, row, int(real.lengths(row).sum()), *shape, difference)
            if name not in found.leaks or found.leaks[name].difference < difference:
                found.leaks[name] = leak
    if not isinstance(program, RowsProgram) or program.has_numbers:
        return
    if np.array_equal(got[answer], want[answer]):
        found.same += 1
    elif agrees and np.array_equal(
        got[answer], decoded(real.trained, real, row, got["scores"]).reshape(got[answer].shape)
    ):
        found.ties += 1
    else:
        found.changed += 1
        found.leaks.setdefault(answer, Leak(answer, row, int(real.lengths(row).sum()), *shape, 1.0))


def _outputs(program: Program, run: Run, real: RealRows, rows: IntArray, padding: Padding) -> tuple[int, list[Outputs]]:
    """Return the width of a batch, and the outputs of each row without padding."""
    if isinstance(program, StepProgram):
        return steps(program, run, real, rows, padding)
    inputs = real.inputs(rows, padding)
    outputs = dict(zip((port.name for port in program.outputs), run(inputs), strict=True))
    per_token = {port.name for port in program.outputs if port.shape[1:2] == ("length",)}
    return int(inputs[0].shape[1 if inputs[-1].ndim == 1 else 2]), [
        {
            name: values[place][: int(real.lengths(row)[0])] if name in per_token else values[place]
            for name, values in outputs.items()
        }
        for place, row in enumerate(rows.tolist())
    ]


def steps(
    program: StepProgram, run: Run, real: RealRows, rows: IntArray, padding: Padding
) -> tuple[int, list[Outputs]]:
    """Read the rows token by token, up to `STEPS`; rows that have ended go on with what is in their padding."""
    *features, lengths = real.inputs(rows, padding)
    n_steps = min(features[0].shape[1], STEPS)
    state: Arrays = [port.zeros(len(rows)) for port in program.inputs[len(features) :]]
    log_p = []
    for step in range(n_steps):
        output, *state = run([*(np.ascontiguousarray(ids[:, step]) for ids in features), *state])
        log_p.append(output)
    every = np.stack(log_p, axis=1)
    return n_steps, [{"log_probability": of_row[: int(n)]} for of_row, n in zip(every, lengths, strict=True)]


def _difference(values: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> float:
    """Return the largest |difference|; inf where only one of them is infinite, or any is NaN."""
    wanted = wanted[: len(values)] if values.ndim else wanted
    if values.shape != wanted.shape:
        return np.inf
    if values.dtype.kind in "biu":
        return float((values != wanted).any())
    with np.errstate(invalid="ignore"):
        difference = np.where(values == wanted, 0.0, np.abs(values.astype(np.float64) - wanted.astype(np.float64)))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))


def _largest(values: npt.NDArray[np.generic]) -> float:
    finite = np.abs(values[np.isfinite(values)].astype(np.float64)) if values.dtype.kind == "f" else np.zeros(0)
    return float(finite.max(initial=0.0))


def variations() -> Iterator[str]:
    """Yield the variations in words."""
    for size, extra, poison in VARIATIONS:
        yield f"{size} rows, {extra} more places, {'other ids' if poison else 'padding ids'} in padding"
