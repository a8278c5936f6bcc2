"""The targets that count, compared with a slow loop over rows, wherever they are ignored, cut off or unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from runner.data.truncation import Truncation
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.ragged import Ragged
from runner.ragged.scored import NO_PREDICTION, scored_losses, scored_predictions, whole_targets, whole_values
from tests.helpers.contract import NoWaiting
from tests.helpers.target_batches import labelled, tagged

N_CLASSES = 3  # of ids 0 to 4; 3 and 4 are unseen
ROWS = [
    [0, IGNORED, 4, 1, 2],
    [],
    [IGNORED, IGNORED],
    [2],
    [IGNORED, 0, 3, IGNORED, IGNORED, 1],
    [1, 2, 0],
]


def split(max_length: int | None) -> Batch:
    return Truncation(max_length, "head").apply(tagged(ROWS))


def values_of(batch: Batch) -> torch.Tensor:
    """A value for each target that the model sees, all different."""
    return torch.arange(10, 10 + int(batch.targets_per_row.sum()))


def slow(max_length: int | None, values: list[int], with_cut: bool, allowed: range) -> list[list[tuple[int, int]]]:
    """Return the targets that count in each row, with their values."""
    rest, rows = iter(values), []
    for ids in ROWS:
        kept = ids[:max_length]
        pairs = [(target, next(rest)) for target in kept]
        pairs += [(target, NO_PREDICTION) for target in ids[len(kept) :]] if with_cut else []
        rows.append([(target, value) for target, value in pairs if target in allowed])
    return rows


def pairs_of(values: torch.Tensor, batch: Batch) -> list[list[tuple[int, int]]]:
    assert isinstance(batch.target, Ragged)
    assert batch.target.on_host().tolist() == batch.target.values.tolist()
    flat = iter(zip(batch.target.values.tolist(), values.tolist(), strict=True))
    return [[next(flat) for _ in range(length)] for length in batch.target.rows.host_lengths]


@pytest.mark.parametrize("max_length", [None, 1, 2, 3, 9])
def test_the_targets_that_count_are_those_of_a_loop(max_length: int | None) -> None:
    batch = split(max_length)
    values = values_of(batch)
    with NoWaiting():
        of_predictions = scored_predictions(values, batch)
        of_losses = scored_losses(Ragged(values, batch.target.rows, "packed"), batch, N_CLASSES)  # type: ignore[union-attr]
    assert pairs_of(*of_predictions) == slow(max_length, values.tolist(), True, range(5))
    assert pairs_of(*of_losses) == slow(max_length, values.tolist(), False, range(N_CLASSES))


@pytest.mark.parametrize("max_length", [None, 2])
def test_batches_of_any_rows_have_the_targets_of_these_rows(max_length: int | None) -> None:
    whole = pairs_of(*scored_predictions(values_of(split(max_length)), split(max_length)))
    offsets = np.concatenate([[0], np.cumsum(split(max_length).targets_per_row)])
    for rows in ([0], [4, 0, 2], [1], [2], [5, 4, 3, 2, 1, 0]):
        batch = split(max_length).select(np.array(rows))
        values = torch.cat([values_of(split(max_length))[offsets[row] : offsets[row + 1]] for row in rows])
        for layout in (batch, batch.pad(), batch.unmasked()):
            assert pairs_of(*scored_predictions(values, layout)) == [whole[row] for row in rows]


def test_whole_rows_are_put_together_again() -> None:
    batch = split(2)
    values = whole_values(values_of(batch), batch)
    assert whole_targets(batch).values.tolist() == [target for row in ROWS for target in row]
    seen = [position < 2 for row in ROWS for position in range(len(row))]
    assert [value != NO_PREDICTION for value in values.tolist()] == seen
    assert values[torch.tensor(seen)].tolist() == values_of(batch).tolist()


def test_losses_of_rows_stay_where_rows_have_several_targets() -> None:
    losses, batch = scored_losses(torch.arange(len(ROWS)), split(None), N_CLASSES)
    assert losses.tolist() == [*range(len(ROWS))]
    assert [len(row) for row in pairs_of(batch.target.values, batch)] == [3, 0, 0, 1, 2, 3]  # type: ignore[union-attr]


def test_rows_with_one_target_count_as_missed_and_have_no_loss_if_it_is_unseen() -> None:
    batch = labelled([0, 3, 2, 4])
    assert scored_predictions(torch.arange(4), batch)[1] is batch
    losses, counted = scored_losses(torch.arange(4), batch, N_CLASSES)
    assert (losses.tolist(), counted.target.tolist(), counted.index.tolist()) == ([0, 2], [0, 2], [0, 2])  # type: ignore[union-attr]
    numbers = replace(batch, target=torch.tensor([0.5, 3.0, -7.0, 9.0]))  # of regression: no ids
    assert scored_losses(torch.arange(4), numbers, N_CLASSES)[0].tolist() == [0, 1, 2, 3]


def test_a_batch_without_such_targets_is_passed_on() -> None:
    batch = tagged([[0, 1], [], [2]])
    assert scored_predictions(torch.arange(3), batch)[1] is batch
