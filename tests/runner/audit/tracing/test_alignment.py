"""The split of outputs into examples by their shapes, and the measure of differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from runner.audit.tracing.alignment import Geometry, differences, parts, possible, reading, split, worst_difference
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

ROWS = [torch.arange(length * 2.0).view(length, 2) + 100 * place for place, length in enumerate((3, 1, 4))]
LENGTHS = (3, 1, 4)
RAGGED = Ragged(torch.cat(ROWS), Rows(np.array(LENGTHS), torch.device("cpu")), "packed")


def padded(width: int, left: bool = False) -> Tensor:
    result = torch.full((3, width, 2), float("nan"))
    for place, row in enumerate(ROWS):
        result[place, width - len(row) if left else 0 :][: len(row)] = row
    return result


LAYOUTS = {
    "padded": (padded(5), Geometry(LENGTHS, 5)),
    "padded, left": (padded(5, left=True), Geometry(LENGTHS, 5, left=True)),
    "time_major": (padded(5).transpose(0, 1), Geometry(LENGTHS, 5)),
    "channels_first": (padded(5).transpose(1, 2), Geometry(LENGTHS, 5)),
    "flat": (padded(5).reshape(15, 2), Geometry(LENGTHS, 5)),
    "tokens": (torch.cat(ROWS), Geometry(LENGTHS, 5)),
    "ragged": (RAGGED, Geometry(LENGTHS, 4)),
    "packed": (pack_sequence(ROWS, enforce_sorted=False), Geometry(LENGTHS, 4)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_are_recovered_from_every_layout(name: str) -> None:
    part, geometry = LAYOUTS[name]
    how = name.split(",")[0]
    assert how in possible(part, geometry)
    assert all(map(torch.equal, split(part, how, geometry), ROWS))


def test_values_of_whole_rows() -> None:
    geometry = Geometry(LENGTHS, 4)
    pooled, states = torch.randn(3, 2), torch.randn(1, 3, 2)
    assert all(map(torch.equal, split(pooled, "rows", geometry), pooled))
    assert all(map(torch.equal, split(states, "states", geometry), states.transpose(0, 1)))
    table = torch.randn(4, 2)  # one vector for each position, the same for all rows
    assert [len(item) for item in split(table, "steps", geometry)] == list(LENGTHS)


def test_a_second_run_resolves_an_ambiguous_shape() -> None:
    """(3, 3) may be rows by positions or positions by rows; a second run of another size decides."""
    square = (torch.zeros(3, 3, 2), Geometry((3, 1, 2), 3))
    assert {"padded", "time_major"} <= possible(*square)
    assert reading([square, (torch.zeros(5, 2, 2), Geometry((5, 1), 5))]) == "time_major"
    assert reading([square, (torch.zeros(2, 5, 2), Geometry((5, 1), 5))]) == "padded"
    assert reading([square, (torch.zeros(7, 11), Geometry((5, 1), 5))]) is None


def test_an_impossible_reading_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be read as 'padded'"):
        split(torch.zeros(2, 2), "padded", Geometry(LENGTHS, 4))


def test_parts_are_found_in_nested_containers() -> None:
    a, b, c = torch.zeros(1), torch.ones(1), RAGGED
    assert [id(part) for part in parts({"x": (a, [b, None, "text"]), "y": c})] == [id(a), id(b), id(c)]
    assert parts(None) == []


def test_differences() -> None:
    inf, nan = math.inf, math.nan
    mine = torch.tensor([1.0, inf, nan, nan, inf, 1.0])
    theirs = torch.tensor([1.5, inf, nan, 1.0, -inf, inf])
    assert differences(mine, theirs).tolist() == [0.5, 0.0, 0.0, inf, inf, inf]
    assert worst_difference(mine[:3], theirs[:3]) == 0.5
    assert worst_difference(torch.zeros(2), torch.zeros(3)) == inf
    assert worst_difference(torch.zeros(0, 2), torch.zeros(0, 2)) == 0.0
