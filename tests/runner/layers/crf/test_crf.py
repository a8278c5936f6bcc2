"""The CRF equals enumeration of all paths and pytorch-crf, in both layouts, for small and large gaps between scores."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torchcrf
from torch import Tensor

from runner.layers.crf import crf as crf_sums
from runner.layers.crf import scaled_domain
from runner.layers.crf import viterbi as crf_decode
from runner.layers.crf.chain import AllowedTransitions, Chain, path_scores
from runner.layers.crf.crf import Constrain, Crf, negative_log_likelihood, token_marginals
from runner.layers.crf.log_domain import LogSums
from runner.layers.crf.scaled_domain import ScaledSums
from runner.layers.crf.viterbi import viterbi
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from tests.helpers.contract import NoWaiting, check_contract, rows_of

ROWS = (4, 0, 1, 5, 2)
N_TAGS = 3


@pytest.fixture(params=["scaled", "exact"])
def domain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force sums in the probability domain or in the log domain."""
    of = {"scaled": ScaledSums.of, "exact": LogSums.of}[request.param]
    monkeypatch.setattr(crf_sums, "path_sums", lambda scores, chain, rows, both: of(scores, chain, rows, both))
    return str(request.param)


def enumerate_all_paths(scores: Tensor, chain: Chain) -> tuple[Tensor, Tensor]:
    """Return every path through a row of scores (L, C), as tags (P, L), and its score, (P,)."""
    length, n_tags = scores.shape
    paths = torch.tensor(list(product(range(n_tags), repeat=length)), dtype=torch.int64)
    totals = []
    for path in paths.tolist():
        total = torch.zeros((), dtype=scores.dtype)
        if path:
            total = chain.start[path[0]] + chain.end[path[-1]] + scores[range(length), path].sum()
            total = total + sum(chain.transitions[a, b] for a, b in pairwise(path))
        totals.append(total)
    return paths, torch.stack(totals)


def random_chain(seed: int = 0, n_tags: int = N_TAGS, forbid: bool = False) -> Chain:
    torch.manual_seed(seed)
    sizes = ((n_tags,), (n_tags, n_tags), (n_tags,))
    chain = Chain(*(torch.randn(size, dtype=torch.float64) for size in sizes))
    return like_iob(n_tags).restrict(chain) if forbid else chain


def like_iob(n_tags: int) -> AllowedTransitions:
    """The last tag may not start a row and follows only itself and the tag before it; the second may not end a row."""
    tag = torch.arange(n_tags)
    follow = (tag != n_tags - 1) | (tag[:, None] >= n_tags - 2)
    return AllowedTransitions(tag != n_tags - 1, follow, tag != 1)


def random_crf(constrain: Constrain = "none", n_tags: int = N_TAGS) -> Crf:
    crf = Crf(n_tags, like_iob(n_tags), constrain).double()
    torch.manual_seed(3)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


def random_scores(lengths: Any = ROWS, n_tags: int = N_TAGS, scale: float = 1.0) -> Tensor:
    torch.manual_seed(1)
    return scale * torch.randn(sum(lengths), n_tags, dtype=torch.float64)


def log_partition(scores: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """Return log Z of each row, (B,); 0 for empty rows."""
    log_z = torch.zeros(rows.n_rows, dtype=torch.float64)
    return log_z.index_copy_(0, rows.time_major.row_order, crf_sums.path_sums(scores, chain, rows, both=False).log_z)


@pytest.mark.parametrize("forbid", [False, True])
def test_partition_marginals_and_best_path_equal_enumeration(domain: str, forbid: bool) -> None:
    rows, scores, chain = rows_of(ROWS), random_scores(), random_chain(forbid=forbid)
    log_z, marginals = log_partition(scores, chain, rows), token_marginals(scores, chain, rows).split(ROWS)
    tags, best = viterbi(scores, chain, rows)
    for row, own in enumerate(scores.split(ROWS)):
        paths, totals = enumerate_all_paths(own, chain)
        torch.testing.assert_close(log_z[row], totals.logsumexp(0), rtol=1e-13, atol=1e-13)
        one_hot = torch.nn.functional.one_hot(paths, N_TAGS).double()
        expected = (totals.softmax(0)[:, None, None] * one_hot).sum(0)
        torch.testing.assert_close(marginals[row], expected, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(best[row], totals.max(), rtol=1e-13, atol=1e-13)
        assert tags.split(ROWS)[row].tolist() == paths[totals.argmax()].tolist()


def test_path_scores_equal_enumeration() -> None:
    rows, scores, chain = rows_of(ROWS), random_scores(), random_chain(forbid=True)
    for number in range(6):
        chosen = [enumerate_all_paths(own, chain) for own in scores.split(ROWS)]
        tags = torch.cat([paths[number % len(paths)] for paths, _ in chosen])
        expected = torch.stack([totals[number % len(totals)] for _, totals in chosen])
        torch.testing.assert_close(path_scores(scores, tags, chain, rows), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_likelihood_gradients_and_decoding_equal_pytorch_crf(domain: str, layout: Literal["packed", "padded"]) -> None:
    lengths = (7, 1, 12, 12, 3)
    crf, theirs = random_crf(n_tags=5), torchcrf.CRF(5, batch_first=True).double()
    ours = (crf.start, crf.transitions, crf.end)
    pairs = zip(ours, (theirs.start_transitions, theirs.transitions, theirs.end_transitions), strict=True)
    for our, their in pairs:
        their.data.copy_(our.data)
    rows = rows_of(lengths, widen=2)
    values, tags = random_scores(lengths, 5), torch.arange(sum(lengths)) % 5
    packed = Ragged(values, rows, "packed")
    x = packed if layout == "packed" else packed.pad()
    x = x.with_values(x.values.requires_grad_())
    expected = -theirs(x.pad().values, Ragged(tags, rows, "packed").pad().values, mask=rows.mask, reduction="none")
    actual = crf.negative_log_likelihood(x, tags)
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
    weights = torch.linspace(-1, 2, len(lengths), dtype=torch.float64)
    mine = torch.autograd.grad((actual * weights).sum(), [x.values, *ours])
    reference = torch.autograd.grad((expected * weights).sum(), [x.values, *theirs.parameters()])
    by_name = dict(zip([name for name, _ in theirs.named_parameters()], reference[1:], strict=True))
    names = ("start_transitions", "transitions", "end_transitions")
    for one, other in zip(mine, [reference[0], *(by_name[name] for name in names)], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    decoded = theirs.decode(x.pad().values, mask=rows.mask)
    assert [part.tolist() for part in crf.decode(x).split(list(lengths))] == decoded


@pytest.mark.parametrize("forbid", [False, True])
def test_gradients_are_those_of_finite_differences(domain: str, forbid: bool) -> None:
    crf, rows = random_crf("both" if forbid else "none"), rows_of(ROWS)
    tags = viterbi(random_scores(), random_chain(forbid=forbid), rows)[0]  # an allowed path

    def loss(scores: Tensor, *parts: Tensor) -> Tensor:
        chain = like_iob(N_TAGS).restrict(Chain(*parts)) if forbid else Chain(*parts)
        return negative_log_likelihood(scores, tags, chain, rows)

    inputs = [random_scores(), *(item.detach() for item in (crf.start, crf.transitions, crf.end))]
    assert torch.autograd.gradcheck(loss, [item.requires_grad_() for item in inputs])


def test_there_is_no_second_derivative() -> None:
    scores = random_scores().requires_grad_()
    tags = torch.zeros(sum(ROWS), dtype=torch.int64)
    total = negative_log_likelihood(scores, tags, random_chain(), rows_of(ROWS)).sum()
    with pytest.raises(RuntimeError, match="cannot be differentiated again; use create_graph=False"):
        torch.autograd.grad(total, scores, create_graph=True)


def likelihood(crf: Crf) -> Callable[[Ragged], Tensor]:
    return lambda x: crf.negative_log_likelihood(x, x.rows.position % 2)[:, None]


@pytest.mark.parametrize("constrain", ["none", "both"])
def test_the_likelihood_keeps_the_contract(domain: str, constrain: Constrain) -> None:
    crf = random_crf(constrain, n_tags=4)
    check_contract(likelihood(crf), 4, list(crf.parameters()))


def test_paths_and_marginals_keep_the_contract(domain: str) -> None:
    crf = random_crf("decode", n_tags=4)

    def decode(x: Ragged) -> Ragged:
        return Ragged(torch.cat([crf.decode(x)[:, None], crf.marginals(x)], dim=1), x.rows, "packed")

    check_contract(decode, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [100.0, 1e4])
def test_extreme_gaps_underflow_nowhere(gap: float, dtype: torch.dtype) -> None:
    """A path that is far behind half-way may be the only one that is allowed to continue."""
    generator = torch.Generator().manual_seed(1)
    rows, chain = rows_of(ROWS), random_chain(forbid=True)
    tags = viterbi(random_scores(), chain, rows)[0]
    for _ in range(10):
        signs = torch.randint(-1, 2, (sum(ROWS), N_TAGS), generator=generator).double()
        scores = (gap * signs + random_scores()).to(dtype).requires_grad_()
        narrow = chain.to(dtype)
        loss = negative_log_likelihood(scores, tags, narrow, rows)
        (grad,) = torch.autograd.grad(loss.sum(), scores)
        exact = scores.detach().double()
        rounded = narrow.to(torch.float64)
        for row, own in enumerate(exact.split(ROWS)):
            paths, totals = enumerate_all_paths(own, rounded)
            right = (paths == tags.split(ROWS)[row]).all(1)
            expected = totals.logsumexp(0) - totals[right][0]
            torch.testing.assert_close(loss[row].detach(), expected, rtol=1e-10, atol=1e-8)
            one_hot = torch.nn.functional.one_hot(paths, N_TAGS).double()
            marginals = (totals.softmax(0)[:, None, None] * one_hot).sum(0)
            actual = grad.split(ROWS)[row].double() + one_hot[right][0]
            torch.testing.assert_close(actual, marginals, rtol=1e-5, atol=1e-6)


def test_paths_that_underflow_half_way_are_found_in_the_log_domain() -> None:
    """Tags that never meet, each far ahead at another step, hide the best path from forward and backward sums."""
    chain = Chain(torch.zeros(2), torch.eye(2).log(), torch.zeros(2)).to(torch.float64)
    scores = torch.tensor([[0.0, 1e4], [1e5, 0.0], [0.0, 1e4]], dtype=torch.float64)
    rows = rows_of((3,))
    assert not ScaledSums.of(scores, chain, rows, both=True).are_exact(chain)
    assert log_partition(scores, chain, rows).tolist() == [1e5]
    assert token_marginals(scores, chain, rows).tolist() == [[1.0, 0.0]] * 3


@pytest.mark.parametrize("forbid", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_the_scaled_domain_is_exact_for_realistic_scores(forbid: bool, both: bool) -> None:
    """Long rows, confident scores and forbidden steps do not drive sums into the slower domain."""
    lengths = (700, 40, 3)
    chain, scores = random_chain(n_tags=5, forbid=forbid), random_scores(lengths, 5, scale=10.0)
    scaled = ScaledSums.of(scores, chain, rows_of(lengths), both)
    assert scaled.are_exact(chain)
    torch.testing.assert_close(
        scaled.log_z, LogSums.of(scores, chain, rows_of(lengths), both).log_z, rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("which", ["scores", "start", "transitions", "end"])
@pytest.mark.parametrize("offset", [200.0, -200.0, 900.0, -900.0])
def test_scores_too_large_for_the_scaled_domain_are_detected(which: str, offset: float) -> None:
    rows, scores, chain = rows_of((20, 3)), random_scores((20, 3)), random_chain()
    parts = {"scores": scores, **chain._asdict()}
    parts[which] = parts[which] + offset
    scores = parts.pop("scores")
    chain = Chain(**parts)
    expected = LogSums.of(scores, chain, rows, both=True)
    torch.testing.assert_close(log_partition(scores, chain, rows), expected.log_z, rtol=1e-13, atol=0)
    torch.testing.assert_close(token_marginals(scores, chain, rows), expected.token_marginals(), rtol=1e-9, atol=1e-11)


def test_nan_stays_in_its_row() -> None:
    scores = random_scores((2, 2))
    scores[0, 0] = torch.nan
    actual = log_partition(scores, random_chain(), rows_of((2, 2)))
    assert actual[0].isnan()
    assert actual[1].isfinite()


def test_rows_without_tokens_cost_nothing() -> None:
    crf = random_crf("both")
    scores = Ragged(torch.zeros(0, N_TAGS, dtype=torch.float64, requires_grad=True), rows_of((0, 0)), "packed")
    tags = torch.zeros(0, dtype=torch.int64)
    loss = crf.negative_log_likelihood(scores, tags)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert all(not parameter.grad.any() for parameter in crf.parameters() if parameter.grad is not None)
    assert crf.decode(scores).shape == (0,)
    assert crf.marginals(scores).shape == (0, N_TAGS)


def test_one_tag_is_certain() -> None:
    crf = Crf(1, AllowedTransitions.allow_all(1), "none")
    scores = Ragged(random_scores((2, 3), 1), rows_of((2, 3)), "packed")
    loss = crf.negative_log_likelihood(scores, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(loss, torch.zeros(2, dtype=torch.float64))


def test_bfloat16_scores_are_summed_in_float32(domain: str) -> None:
    narrow, rows, chain = random_scores().to(torch.bfloat16), rows_of(ROWS), random_chain()
    torch.testing.assert_close(log_partition(narrow, chain, rows), log_partition(narrow.double(), chain, rows))
    assert torch.equal(viterbi(narrow, chain, rows)[0], viterbi(narrow.float(), chain, rows)[0])


@pytest.mark.parametrize("constrain", ["none", "train", "decode", "both"])
def test_constrain_applies_in_training_decoding_or_both(constrain: Constrain) -> None:
    crf = random_crf(constrain)
    forbidden = torch.tensor([0, 2])  # the last tag does not follow the first
    scores = Ragged(torch.tensor([[9.0, 0, 0], [0, 0, 9.0]]).double(), rows_of((2,)), "packed")
    assert crf.negative_log_likelihood(scores, forbidden).isinf().all() == (constrain in ("train", "both"))
    held = constrain in ("decode", "both")
    assert (crf.decode(scores).tolist() == [0, 2]) != held
    assert (crf.marginals(scores)[0, 2] == 0.0) == held


def test_a_tagger_without_a_chain_is_constrained_by_zeros() -> None:
    scores = random_scores((6, 1, 4), scale=3.0).log_softmax(1)
    sizes = ((N_TAGS,), (N_TAGS, N_TAGS), (N_TAGS,))
    free = Chain(*(torch.zeros(size, dtype=torch.float64) for size in sizes))
    rows = rows_of((6, 1, 4))
    assert torch.equal(viterbi(scores, free, rows)[0], scores.argmax(1))
    held = like_iob(N_TAGS).restrict(free)
    tags = viterbi(scores, held, rows)[0]
    assert path_scores(scores, tags, held, rows).isfinite().all()
    assert not torch.equal(tags, scores.argmax(1))


@pytest.mark.parametrize(
    ("module", "step", "rows_axis", "run"),
    [
        (scaled_domain, "_multiply", 1, "likelihood"),
        (crf_decode, "_highest_previous", 1, "decode"),
        (crf_decode, "_best_previous", 0, "decode"),
    ],
)
def test_no_step_runs_over_padding(
    monkeypatch: pytest.MonkeyPatch, module: Any, step: str, rows_axis: int, run: str
) -> None:
    lengths = (50, 0, 2, 3, 1, 1)
    x = Ragged(random_scores(lengths), rows_of(lengths, widen=10), "packed").pad(torch.nan)
    crf, original, counted = random_crf(), getattr(module, step), list[int]()

    def counting(*arguments: Any) -> Any:
        counted.append(arguments[0].shape[rows_axis])
        return original(*arguments)

    monkeypatch.setattr(module, step, counting)
    if step == "_best_previous":
        monkeypatch.setattr(crf_decode, "MAX_NUMPY_TAGS", 0)
    if run == "likelihood":
        crf.negative_log_likelihood(x, torch.zeros(57, dtype=torch.int64))
    else:
        crf.decode(x)
    assert sum(counted) == sum(length - 1 for length in lengths if length)


@pytest.mark.parametrize("n_tags", [2, 9, 17])
@pytest.mark.parametrize("forbid", [False, True])
def test_paths_on_the_host_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, n_tags: int, forbid: bool) -> None:
    """With scores of few values, so that many paths are equally good."""
    lengths = (7, 0, 1, 12, 7, 3)
    rows, chain = rows_of(lengths), random_chain(n_tags=n_tags, forbid=forbid and n_tags > 2)
    chain = Chain(*(item.round() for item in (chain.start, chain.transitions, chain.end)))
    scores = torch.randint(3, (sum(lengths), n_tags)).double()
    on_host = viterbi(scores, chain, rows)
    monkeypatch.setattr(crf_decode, "MAX_NUMPY_TAGS", 0)
    for mine, theirs in zip(on_host, viterbi(scores, chain, rows), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("both", [False, True])
def test_large_products_are_made_by_torch(monkeypatch: pytest.MonkeyPatch, both: bool) -> None:
    scores, chain, rows = random_scores(), random_chain(), rows_of(ROWS)
    by_numpy = ScaledSums.of(scores, chain, rows, both)
    monkeypatch.setattr(scaled_domain, "ONE_THREAD", 0)
    torch.testing.assert_close(ScaledSums.of(scores, chain, rows, both).log_z, by_numpy.log_z)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Use the log domain, as on a GPU, where no value is read by the host."""
    monkeypatch.setattr(crf_sums, "path_sums", LogSums.of)
    crf, packed = random_crf("both"), Ragged(random_scores(), rows_of(ROWS), "packed")
    x = packed if layout == "packed" else packed.pad()
    x = x.with_values(x.values.requires_grad_())
    tags = viterbi(random_scores(), random_chain(forbid=True), rows_of(ROWS))[0]
    with NoWaiting():
        crf.negative_log_likelihood(x, tags).sum().backward()
        crf.decode(x)
        crf.marginals(x)
    assert np.isfinite(x.values.grad.numpy()).all()
