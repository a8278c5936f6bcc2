"""Rows whose lengths are known only when a traced program runs: for models that are exported (`runner.export`)."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.ragged.rows import Rows


class HostLengths(HydromelError):
    """A layer asks for lengths on the host while it is traced."""


class TracedRows(Rows):
    """Rows of a padded rectangle, with lengths that are a tensor, and sizes that may be symbolic.

    Layers must compute such rows where they are, by `mask` and `lengths`: nothing can be packed, since the number of
    tokens is unknown. What treats each token by itself may take all places, padding too: `flat` lists all of them.

    Args:
        lengths: (B,) number of tokens of each row.
        width: T.
        full: all rows have T tokens.
    """

    on_host = False

    def __init__(self, lengths: Tensor, width: int, full: bool = False) -> None:
        self.lengths, self.full, self.device = lengths, full, lengths.device
        self.n_rows, self.width, self.max_len = lengths.shape[0], width, width
        self.n_tokens = self.n_rows * width  # places
        self.seeds, self.source, self.stepwise = None, None, False
        self._cache = {}

    @property
    def host_lengths(self) -> IntArray:  # type: ignore[override]  # an attribute of rows on the host
        """Raise `HostLengths`."""
        raise HostLengths("it reads the lengths of rows on the host (`Rows.host_lengths`)")

    def is_rectangle(self, width: int) -> bool:
        return self.full

    @cached_property
    def flat(self) -> Tensor:
        """(B*T,) the index of each place in the flattened padded layout."""
        return torch.arange(self.n_tokens, device=self.device)

    @cached_property
    def single(self) -> Rows:
        """Rows of length 1, for vectors pooled from these rows."""
        return TracedRows(torch.ones_like(self.lengths), 1, full=True)

    def to(self, device: torch.device) -> Rows:
        """Return the same rows, which are on `device` already: a traced program moves nothing."""
        return self
