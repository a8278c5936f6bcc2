"""The tagging head: a score for each tag of each token, decoded token by token or for a whole row.

Shapes: B rows, N real tokens, C tags.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from runner.interfaces import Loss
from runner.layers.crf.chain import AllowedTransitions, Chain, accumulation_dtype
from runner.layers.crf.crf import Constrain, Crf
from runner.layers.crf.viterbi import viterbi
from runner.layers.dropout import Dropout
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tasks.heads.outputs import Output, OutputHead
from tasks.targets import class_ids, target_rows, token_vectors

HeadKind = Literal["softmax", "crf", "count"]


class TagHead(OutputHead):
    """A head that applies dropout and a linear layer: token vectors (D) -> (N, C), for real tokens only.

    Args:
        dropout: dropout probability.
        linear: (N, D) -> (N, C).
        output: the loss and predictions defined on the scores.
    """

    def __init__(self, dropout: float, linear: nn.Module, output: Output) -> None:
        super().__init__(output)
        self.dropout, self.linear = Dropout(dropout), linear

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        scores: Tensor = self.linear(self.dropout(token_vectors(encoded, batch), target_rows(batch), "packed"))
        return scores


class ConstrainedOutput(OutputHead):
    """An output that treats each token independently, but predicts the most likely legal path of a row.

    Probabilities are those of independent tokens.

    Args:
        output: the loss and predictions of independent tokens.
        allowed: the legal transitions between tags.
    """

    def __init__(self, output: Output, allowed: AllowedTransitions) -> None:
        super().__init__(output)
        parts = (allowed.start, allowed.transitions, allowed.end)
        # The scores of transitions: 0, and -inf for illegal ones.
        chain = allowed.restrict(Chain(*(torch.zeros(part.shape) for part in parts)))
        for name, part in chain._asdict().items():
            self.register_buffer(name, part, persistent=False)
        self.start: Tensor
        self.transitions: Tensor
        self.end: Tensor

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        # A CRF whose transitions score 0 or -inf: its best path is the most likely legal sequence of tags.
        log_probability = scores.to(accumulation_dtype(scores)).log_softmax(dim=1)
        return viterbi(log_probability, Chain(self.start, self.transitions, self.end), target_rows(batch))[0]


class CrfOutput(nn.Module):
    """An output that scores all tags of a row jointly, by a linear-chain CRF.

    Args:
        n_tags: C.
        allowed: the legal transitions between tags.
        constrain: where illegal transitions are excluded: none, decode, train or both.
    """

    def __init__(self, n_tags: int, allowed: AllowedTransitions, constrain: Constrain) -> None:
        super().__init__()
        self.crf = Crf(n_tags, allowed, constrain)

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Return the negative log-likelihood of the rows' paths, in nats, with the number of targets as its count.

        Dividing by tokens instead of rows keeps the loss on the scale of a softmax, so learning rates carry over.
        """
        return Loss(self.losses(scores, batch).sum(), batch.n_targets)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the negative log-likelihood (B,) of each row's path; of all its paths through the tags that have one.

        A token whose target is ignored, or is a tag that the training set lacks, may have any tag.
        """
        target, _ = class_ids(batch, scores.shape[1])
        on_host = batch.targets_on_host()
        observed = (on_host >= 0) & (on_host < scores.shape[1])
        mask = None if observed.all() else target_rows(batch).send(observed)
        losses = self.crf.negative_log_likelihood(_ragged(scores, batch), target, mask)
        return losses.to(accumulation_dtype(scores))

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return each row's best path, as tag ids (N,)."""
        return self.crf.decode(_ragged(scores, batch))

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the marginal probabilities (N, C) over all paths of each row."""
        return self.crf.marginals(_ragged(scores, batch)).to(accumulation_dtype(scores))


def _ragged(scores: Tensor, batch: Batch) -> Ragged:
    return Ragged(scores, target_rows(batch), "packed")
