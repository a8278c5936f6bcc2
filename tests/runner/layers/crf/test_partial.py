"""A CRF in which some tokens may have any tag, compared with the enumeration of all paths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runner.layers.crf.chain import AllowedTransitions, Chain
from runner.layers.crf.crf import negative_log_likelihood
from runner.ragged.ragged import Ragged
from tests.helpers.contract import NoWaiting, rows_of
from tests.runner.layers.crf.test_crf import (
    N_TAGS,
    ROWS,
    domain,
    enumerate_all_paths,
    random_chain,
    random_crf,
    random_scores,
)

__all__ = ["domain"]  # a fixture
TAGS = torch.tensor([0, 2, 1, 0, 1, 2, 2, 0, 1, 0, 0, 1])
OBSERVED = {
    "some": torch.tensor([True, False, False, True, True, True, False, True, False, True, False, True]),
    "none": torch.zeros(12, dtype=torch.bool),
    "all": torch.ones(12, dtype=torch.bool),
    "a row": torch.arange(12) >= 4,
}


def slow(scores: Tensor, tags: Tensor, observed: Tensor, chain: Chain) -> Tensor:
    """Return log of the sum over all paths minus log of that over the paths through the observed tags, (B,)."""
    losses = []
    parts = (part.split(ROWS) for part in (scores, tags, observed))
    for own, gold, known in zip(*parts, strict=True):
        paths, totals = enumerate_all_paths(own, chain)
        agrees = ((paths == gold) | ~known).all(dim=1)
        losses.append(totals.logsumexp(0) - totals[agrees].logsumexp(0))
    return torch.stack(losses)


@pytest.mark.parametrize("forbid", [False, True])
@pytest.mark.parametrize("case", OBSERVED)
def test_the_likelihood_sums_over_all_tags_of_unobserved_tokens(domain: str, case: str, forbid: bool) -> None:
    rows, observed = rows_of(ROWS), OBSERVED[case]
    tags = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) if forbid else TAGS  # a path that is allowed
    leaves = [part.requires_grad_() for part in (random_scores(), *random_chain(forbid=forbid))]
    weights = torch.linspace(1, 2, len(ROWS), dtype=torch.float64)
    chain = Chain(*leaves[1:])
    both = (
        negative_log_likelihood(leaves[0], tags, chain, rows, observed),
        slow(leaves[0], tags, observed, chain),
    )
    results = [(loss.detach(), *torch.autograd.grad((loss * weights).sum(), leaves)) for loss in both]
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected.nan_to_num(0.0), rtol=1e-11, atol=1e-12)


def test_tokens_that_are_all_observed_have_the_usual_likelihood(domain: str) -> None:
    scores, chain, rows = random_scores(), random_chain(), rows_of(ROWS)
    usual = negative_log_likelihood(scores, TAGS, chain, rows)
    torch.testing.assert_close(negative_log_likelihood(scores, TAGS, chain, rows, OBSERVED["all"]), usual)
    nothing = negative_log_likelihood(scores, TAGS, chain, rows, OBSERVED["none"])
    torch.testing.assert_close(nothing, torch.zeros(len(ROWS), dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_row_does_not_depend_on_what_is_observed_in_others_nor_on_the_layout() -> None:
    crf, scores = random_crf(), random_scores()
    packed = Ragged(scores, rows_of(ROWS), "packed")
    for layout in (packed, packed.pad(float("nan"))):
        losses = crf.negative_log_likelihood(layout, TAGS, OBSERVED["some"])
        start = 0
        for row, length in enumerate(ROWS):
            own = slice(start, start + length)
            alone = Ragged(scores[own], rows_of([length]), "packed")
            expected = crf.negative_log_likelihood(alone, TAGS[own], OBSERVED["some"][own])
            torch.testing.assert_close(losses[row : row + 1], expected, rtol=1e-12, atol=1e-12)
            start += length


def test_viterbi_does_not_look_at_what_is_observed_and_nothing_waits() -> None:
    crf = random_crf()
    scores = Ragged(random_scores().requires_grad_(), rows_of(ROWS), "packed")
    with NoWaiting():
        crf.negative_log_likelihood(scores, TAGS, OBSERVED["some"]).sum().backward()
    assert len(crf.decode(scores)) == sum(ROWS)
    assert N_TAGS == 3


def test_masks_that_allow_everything_can_be_restored() -> None:
    for part in AllowedTransitions.allow_all(3):  # as the audit does with all buffers
        part.copy_(part.clone())
