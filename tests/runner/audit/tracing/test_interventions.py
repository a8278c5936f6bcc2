"""Changes that are put into a run are large enough to be seen whatever the rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.audit.tracing.interventions import _shift_unevenly


@pytest.mark.parametrize("shape", [(2, 8), (2, 3, 8)])
def test_no_normalisation_takes_a_shift_off_again(shape: tuple[int, ...]) -> None:
    """Not even that of a batch of equal rows, whose mean follows every shift that is the same for all of them."""
    values = torch.randn(shape[-1], dtype=torch.float64).expand(shape)

    def by_batch(x: Tensor) -> Tensor:
        return F.batch_norm(x.flatten(0, -2), None, None, training=True)

    def by_layer(x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:])

    for normalise in (by_batch, by_layer):
        moved = normalise(_shift_unevenly(values)) - normalise(values)
        assert moved.abs().max() > 0.01  # rounding would be 1e-15
