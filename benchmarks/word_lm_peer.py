"""PyTorch's own example word_language_model, as an entrant of `contest.py` beside `experiment=word_lm`.

Both train the same LSTM (200 units, 2 layers, dropout 0.2, untied, WikiText-2's vocabulary of 33,278) from the same
initial weights, with plain SGD and clipped gradients, on the same stream in windows of 35 tokens. The peer has the
example's model and loop: a decoder over all (T * B, V) scores, log_softmax, NLLLoss, and a Python loop over parameters.
A strong user of it takes torch's cross entropy and SGD, and keeps freed memory as Hydromel does (`malloc`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from contest import Step
from torch import Tensor, nn
from training_ours import Ours, compose
from training_steps import SAME_LOSS

from runner.interfaces import START
from runner.ragged.ragged import Ragged

RATE, CLIP = 20.0, 0.25


class Peer(nn.Module):
    """The example's model, RNNModel with rnn_type LSTM, with Hydromel's weights."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(*ours.embedding.table.weight.shape)
        self.rnn = nn.LSTM(200, 200, 2, dropout=0.2)
        self.decoder = nn.Linear(200, len(ours.head.output.bias))
        self.encoder.load_state_dict(ours.embedding.table.state_dict())
        self.decoder.load_state_dict(ours.head.output.state_dict())
        layers = [one.cell.state_dict() for one in ours.encoder.forwards]
        self.rnn.load_state_dict(
            {name.replace("l0", f"l{at}"): weight for at, one in enumerate(layers) for name, weight in one.items()}
        )

    def forward(self, words: Tensor, hidden: Any) -> tuple[Tensor, Any]:
        decoded, hidden = self.scores(words, hidden)
        return decoded.log_softmax(dim=1), hidden

    def scores(self, words: Tensor, hidden: Any) -> tuple[Tensor, Any]:
        output, hidden = self.rnn(self.drop(self.encoder(words)), hidden)
        decoded = self.decoder(self.drop(output))
        return decoded.view(-1, decoded.shape[-1]), hidden


def example_step(strong: bool, data: str, device: str, batch_size: int) -> Step:
    """Return the step of the example's loop, in which streams are columns and windows are ranges of rows."""
    malloc = "malloc=keep" if strong else "malloc=return"
    ours = Ours(compose("word_lm", data, f"batching.batch_size={batch_size}", malloc, "device=cpu"))
    stream, window = ours.data.splits["train"].target.values, ours.config["batching"]["window"]
    columns = stream.long()[: len(stream) // batch_size * batch_size].view(batch_size, -1).t().contiguous().to(device)
    model, criterion = Peer(ours.model), nn.NLLLoss()
    apart = apart_from(model, ours)
    assert apart < SAME_LOSS, f"the models differ: their losses differ by {apart:.1e}"
    model.to(device)
    hidden: Any = None
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)  # of a strong user

    def step(number: int) -> tuple[Tensor, int, int]:
        nonlocal hidden
        start = number * window % (len(columns) - window - 1)
        model.train()
        model.zero_grad()
        hidden = None if hidden is None else tuple(one.detach() for one in hidden)
        words, answers = columns[start : start + window], columns[start + 1 : start + 1 + window].reshape(-1)
        if strong:
            scores, hidden = model.scores(words, hidden)
            loss = F.cross_entropy(scores, answers)
        else:
            output, hidden = model(words, hidden)
            loss = criterion(output, answers)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        if strong:
            optimizer.step()
        else:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.data.add_(parameter.grad, alpha=-RATE)
        return loss.detach(), batch_size * window, 0

    return step


def apart_from(peer: Peer, ours: Ours) -> float:
    """Return the relative difference of the losses of the first window, without dropout; both models are on the CPU."""
    (batch,) = ours.batching.micro_batches(ours.train, ours.rows(0))
    assert isinstance(batch.target, Ragged)
    words, answers = (ids.pad().values.t().long() for ids in (batch.features["words"], batch.target))
    ours.model.eval()
    peer.eval()
    with torch.no_grad():
        loss = ours.model.head.loss(ours.model(batch, START)[0], batch)
        theirs = nn.functional.nll_loss(peer(words, None)[0], answers.reshape(-1))
    return abs(float(theirs) / (float(loss.total) / loss.count) - 1)
