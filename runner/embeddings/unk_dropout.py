"""Word dropout: some known tokens are `<unk>` while training, so that its vector is learned."""

from __future__ import annotations

import torch
from torch import nn

from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged
from runner.text.vocab import EOS, PAD, UNK, Vocab


class SomeUnknown(nn.Module):
    """Replace each known token by `<unk>` with probability `rate` in training (Iyyer et al. 2015, section 2.3.1).

    It draws as any dropout does: anew for each update, on the device, from a row's own seed where there is one.

    Args:
        vocab: of the ids; `<pad>`, `<eos>` and a vocabulary without `<unk>` stay as they are.
        rate: 0 to below 1.
    """

    def __init__(self, vocab: Vocab, rate: float) -> None:
        super().__init__()
        self.unk = vocab.unk
        self.first = next((n for n, token in enumerate(vocab.tokens) if token not in (PAD, UNK, EOS)), len(vocab))
        self.dropout = Dropout(rate)

    def forward(self, ids: Ragged) -> Ragged:
        """Ids -> ids."""
        if not self.training or self.dropout.p == 0.0 or self.unk is None:
            return ids
        kept = self.dropout.of(ids.map(lambda values: torch.ones(values.shape, device=values.device))).values > 0
        return ids.with_values(ids.values.masked_fill(~kept & (ids.values >= self.first), self.unk))
