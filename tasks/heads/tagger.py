"""The head of a tagger: scores for each tag of each token, and what is made of them, token by token or by the row.

Shapes: N real tokens, C tags.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from runner.interfaces import Loss
from runner.layers.crf.chain import Allowed, Chain, wide
from runner.layers.crf.crf import Constrain, Crf
from runner.layers.crf.viterbi import viterbi
from runner.layers.dropout import Dropout
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tasks.heads.outputs import AnswerOutput, OutputHead
from tasks.targets import answer_rows, answers, token_vectors

HeadKind = Literal["softmax", "crf", "count"]


class TagHead(OutputHead):
    """Drop out, score: token vectors (D) -> (N, C) for the real tokens alone.

    Args:
        dropout: probability.
        linear: (N, D) -> (N, C).
        output: what scores mean.
    """

    def __init__(self, dropout: float, linear: nn.Module, output: AnswerOutput) -> None:
        super().__init__(output)
        self.dropout = Dropout(dropout)
        self.linear = linear

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        vectors = self.dropout(token_vectors(encoded, batch), answer_rows(batch), "packed")
        scores: Tensor = self.linear(vectors)
        return scores


class SoftmaxOutput(nn.Module):
    """Each token's tags by themselves.

    Args:
        output: what scores mean.
        allowed: which tags may follow which.
        constrain: predict the likeliest path that is allowed, instead of each token's likeliest tag.
    """

    def __init__(self, output: AnswerOutput, allowed: Allowed, constrain: bool) -> None:
        super().__init__()
        self.output = output
        self.constrain = constrain
        for name, part in vars(_zeros_or_never(allowed)).items():
            self.register_buffer(name, part, persistent=False)
        self.start: Tensor
        self.transitions: Tensor
        self.end: Tensor

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Cross entropy, summed over tokens."""
        return self.output.loss(scores, batch)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        return self.output.losses(scores, batch)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        if not self.constrain:
            return scores.argmax(dim=1)
        log_probability = scores.to(wide(scores)).log_softmax(dim=1)
        return viterbi(log_probability, Chain(self.start, self.transitions, self.end), answer_rows(batch))[0]

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        """By each token's softmax, whatever is allowed."""
        return self.output.probabilities(scores, batch)


class CrfOutput(nn.Module):
    """All tags of a row at once, by a linear-chain CRF.

    Args:
        n_tags: C.
        allowed: which tags may follow which.
        constrain: where that holds.
    """

    def __init__(self, n_tags: int, allowed: Allowed, constrain: Constrain) -> None:
        super().__init__()
        self.crf = Crf(n_tags, allowed, constrain)

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Negative log-likelihood of the rows' paths, in nats, counted by tokens: as large as a softmax's, so that
        learning rates carry over, and long rows weigh more.
        """
        return Loss(self.losses(scores, batch).sum(), scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """(B,) of each row's path."""
        return self.crf.negative_log_likelihood(_ragged(scores, batch), answers(batch)).to(wide(scores))

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        """Each row's best path."""
        return self.crf.decode(_ragged(scores, batch))

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        """Marginals, over all paths of the row."""
        return self.crf.marginals(_ragged(scores, batch)).to(wide(scores))


def _ragged(scores: Tensor, batch: Batch) -> Ragged:
    return Ragged(scores, answer_rows(batch), "packed")


def _zeros_or_never(allowed: Allowed) -> Chain:
    """Transitions without a say, but for those that are not allowed."""
    parts = (allowed.start, allowed.transitions, allowed.end)
    return allowed.restrict(Chain(*(torch.zeros(part.shape) for part in parts)))
