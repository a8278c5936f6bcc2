"""PyTorch's own example, word_language_model, as an entrant of `contest.py` beside `experiment=word_lm`.

Both train the same LSTM (200 numbers, 2 layers, dropout 0.2, untied, vocabulary of WikiText-2's 33,278) with plain SGD
and clipped gradients, on the same stream in the same windows of 35 tokens. The peer is the example's model and loop: a
decoder over the whole (T * B, V), log_softmax, NLLLoss, and a Python loop over parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from contest import Step
from torch import Tensor, nn
from training_ours import Ours, compose

RATE, CLIP = 20.0, 0.25


class Peer(nn.Module):
    """The example's model: RNNModel with rnn_type LSTM."""

    def __init__(self, n_words: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(n_words, 200)
        self.rnn = nn.LSTM(200, 200, 2, dropout=0.2)
        self.decoder = nn.Linear(200, n_words)
        for weight in (self.encoder.weight, self.decoder.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, words: Tensor, hidden: Any) -> tuple[Tensor, Any]:
        output, hidden = self.rnn(self.drop(self.encoder(words)), hidden)
        decoded = self.decoder(self.drop(output))
        return decoded.view(-1, decoded.shape[-1]).log_softmax(dim=1), hidden


def example_step(data: str, device: str, batch_size: int) -> Step:
    """The example's loop: streams in columns, windows down the rows."""
    ours = Ours(compose("word_lm", data, f"batching.batch_size={batch_size}", "malloc=return", "device=cpu"))
    stream, window = ours.data.splits["train"].target.values, ours.config["batching"]["window"]
    torch.manual_seed(ours.config["seed"])
    columns = stream[: len(stream) // batch_size * batch_size].view(batch_size, -1).t().contiguous().to(device)
    model, criterion = Peer(len(ours.data.vocabs["target"])).to(device), nn.NLLLoss()
    hidden: Any = None

    def step(number: int) -> tuple[Tensor, int]:
        nonlocal hidden
        start = number * window % (len(columns) - window - 1)
        model.train()
        model.zero_grad()
        hidden = None if hidden is None else tuple(one.detach() for one in hidden)
        output, hidden = model(columns[start : start + window], hidden)
        loss: Tensor = criterion(output, columns[start + 1 : start + 1 + window].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data.add_(parameter.grad, alpha=-RATE)
        return loss.detach(), batch_size * window

    return step
