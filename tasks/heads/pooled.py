"""The head of tasks with one target per row: it pools, transforms and scores.

Shapes: B rows, vectors of size D, C scores per row.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from runner.layers.pooling import Mlp, PairPool, Pooling, pooling
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tasks.heads.outputs import Output, OutputHead


class PooledHead(OutputHead):
    """A head that pools, transforms and scores: token vectors (D) -> (B, C).

    Args:
        pool: rows of (length, D) -> (B, D); two rows each, if rows are pairs that are encoded apart.
        hidden: (B, D) -> (B, H).
        linear: (B, H) -> (B, C).
        output: the loss and predictions defined on the scores.
    """

    def __init__(self, pool: Callable[[Ragged], Tensor], hidden: Mlp, linear: nn.Module, output: Output) -> None:
        super().__init__(output)
        self.pool, self.hidden, self.linear = pool, hidden, linear

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        scores: Tensor = self.linear(self.hidden(self.pool(encoded), batch.single))
        return scores


def pool_of(kind: Pooling, size: int, apart: bool) -> tuple[Callable[[Ragged], Tensor], int]:
    """Return the pooling of vectors (D) of one text, or of two texts that are encoded `apart`, and the pooled size."""
    pool = pooling(kind, size)
    return (PairPool(pool), size * PairPool.TIMES) if apart else (pool, size)
