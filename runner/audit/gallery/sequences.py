"""Recurrent layers, conditional random fields and characters with frequent bugs, and their fixed versions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from runner.audit.gallery.layers import Variant


class BackwardOverPadding(Variant):
    """Wrong: the backward direction of a bidirectional LSTM reads the padding first."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.lstm = nn.LSTM(6, 3, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if not self.fixed:
            output: Tensor = self.lstm(x)[0]
            return output
        lengths = mask.sum(1).clamp(min=1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class Gru(Variant):
    """A gated recurrent unit."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.gru = nn.GRU(6, 6, batch_first=True)


class LastState(Gru):
    """Wrong: the state at the padded end is used instead of the one at the row's own end."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        output: Tensor = self.gru(x)[0]
        if not self.fixed:
            return output[:, -1]
        last = (mask.sum(1) - 1).clamp(min=0)
        return output.gather(1, last[:, None, None].expand(-1, 1, output.shape[-1]))[:, 0]


class SortedRows(Gru):
    """Wrong: rows are sorted by length for packing and returned sorted, while labels are not sorted."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        lengths, order = mask.sum(1).clamp(min=1).sort(descending=True, stable=True)
        packed = pack_padded_sequence(x[order], lengths.cpu(), batch_first=True)
        last: Tensor = self.gru(packed)[1][0]
        return last[order.argsort()] if self.fixed else last


class KeptState(Gru):
    """Wrong: the hidden state is kept in the module, so a batch starts with the final state of the batch before it."""

    state: Tensor | None = None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        output: Tensor
        fits = self.state is not None and self.state.shape[1] == len(x)
        output, final = self.gru(x, self.state if fits and not self.fixed else None)
        self.state = final.detach()
        return output


class LogPartition(Variant):
    """The CRF's forward recursion, log sum over paths of exp(score) (Lafferty et al. 2001): (B, T, C) -> (B, C) alpha.

    Wrong: alpha is overwritten at padded steps (golden case "CRF forward past a row's end").
    """

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.transitions = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        alpha = x[:, 0]
        for step in range(1, x.shape[1]):
            # alpha'_j = log sum_i exp(alpha_i + transition_ij) + emission_j; a row's alpha must stop at its own end.
            new = torch.logsumexp(alpha[:, :, None] + self.transitions, dim=1) + x[:, step]
            alpha = torch.where(mask[:, step, None], new, alpha) if self.fixed else new
        return alpha


class PathScore(Variant):
    """The score of the path 0, 1, 2, 0, ...: emissions and transitions, (B, T, C) -> (B, 1).

    Wrong: emissions are masked, but transitions into padded steps are counted.
    """

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.transitions = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        tags = (torch.arange(x.shape[1], device=x.device) % 3).expand(len(x), -1)
        emissions = x.gather(2, tags[:, :, None]).squeeze(2).masked_fill(~mask, 0.0).sum(1)
        steps = self.transitions[tags[:, :-1], tags[:, 1:]]
        if self.fixed:
            steps = steps.masked_fill(~mask[:, 1:], 0.0)
        return (emissions + steps.sum(1))[:, None]


class CharacterPool(Variant):
    """Words of characters (B, T, W) -> (B, T, 6): embedding, convolution, maximum over the word.

    Wrong: the maximum includes the word's padding, which grows with the longest word of the batch.
    """

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.embed = nn.Embedding(20, 4, padding_idx=0)
        self.convolve = nn.Conv1d(4, 6, 3, padding=1)

    def forward(self, characters: Tensor, counts: Tensor) -> Tensor:
        n_rows, width, longest = characters.shape
        real = torch.arange(longest, device=characters.device) < counts[:, :, None]
        embedded = self.embed(characters.masked_fill(~real, 0)).view(n_rows * width, longest, 4)
        scores = self.convolve(embedded.transpose(1, 2)).view(n_rows, width, 6, longest)
        if self.fixed:
            scores = scores.masked_fill(~real[:, :, None, :], -torch.inf)
        pooled: Tensor = scores.amax(-1).masked_fill((counts == 0)[:, :, None], 0.0)
        return pooled


class Characters(nn.Module):
    """Word vectors from characters, then scores for each word."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.characters = CharacterPool(fixed)
        self.score = nn.Linear(6, 3)

    def forward(self, characters: Tensor, counts: Tensor) -> Tensor:
        scores: Tensor = self.score(self.characters(characters, counts))
        return scores
