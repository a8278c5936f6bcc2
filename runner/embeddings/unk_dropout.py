"""Word dropout: some known tokens are replaced by `<unk>` in training, so that the vector of `<unk>` is learned."""

from __future__ import annotations

import torch
from torch import nn

from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged
from runner.text.vocab import EOS, PAD, UNK, Vocab


class UnkDropout(nn.Module):
    """A layer that replaces each known token by `<unk>` with probability `rate` in training.

    See Iyyer et al. 2015, section 2.3.1. The masks are drawn like those of any dropout: for each update, on the device,
    and from a row's own seed if it has one.

    Args:
        vocab: vocabulary of the ids; `<pad>` and `<eos>` are never replaced, nor are ids of one without `<unk>`.
        rate: probability, from 0 to below 1.
    """

    def __init__(self, vocab: Vocab, rate: float) -> None:
        super().__init__()
        self.unk = vocab.unk
        self.first = next((n for n, token in enumerate(vocab.tokens) if token not in (PAD, UNK, EOS)), len(vocab))
        self.dropout = Dropout(rate)

    def forward(self, ids: Ragged) -> Ragged:
        """Map ids to ids."""
        if not self.training or self.dropout.p == 0.0 or self.unk is None:
            return ids
        kept = self.dropout.apply_to(ids.map(lambda values: torch.ones(values.shape, device=values.device))).values > 0
        return ids.with_values(ids.values.masked_fill(~kept & (ids.values >= self.first), self.unk))
