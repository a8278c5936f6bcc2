"""A table with a vector for each piece, which model2vec distils from a transformer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.embeddings.pretrained_transformer.backbone import PieceModel
from runner.embeddings.pretrained_transformer.files import STATIC
from runner.ragged.ragged import Ragged

TABLE, WEIGHTS = "embeddings", "weights"  # names of tensors in the file: vectors, and optionally a weight of each piece


class StaticTable(PieceModel):
    """A look-up of the vectors of pieces; nothing depends on other pieces of the row."""

    def __init__(self, n_pieces: int, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_pieces, size)
        self.kind, self.size, self.n_layers, self.vocabulary = STATIC, size, 0, n_pieces
        self.max_pieces, self.pad, self.n_segments, self.causal = None, 0, 0, True

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], source: str) -> StaticTable:
        """Return the table of the tensors of a file; the weights of pieces, if any, are multiplied in.

        Raises:
            HydromelError: the file has no table.
        """
        vectors = tensors.get(TABLE)
        if vectors is None or vectors.dim() != 2:
            raise HydromelError(f"embedding.path={source}: its weights have no matrix '{TABLE}'")
        vectors = vectors.float()
        if (weights := tensors.get(WEIGHTS)) is not None:
            vectors = vectors * weights.float()[:, None]
        result = cls(vectors.shape[0], vectors.shape[1])
        with torch.no_grad():
            result.table.weight.copy_(vectors)
        return result

    def pieces_table(self) -> nn.Embedding:
        return self.table

    def forward(self, ids: Ragged, segments: Tensor | None, all_layers: bool) -> list[Ragged]:
        """Return vectors as `Backbone.forward` does."""
        return [ids.with_values(self.table(ids.filled(self.pad)))]
