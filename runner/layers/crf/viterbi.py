"""The best path through each row (Viterbi 1967), and the k best. No Python per token: one turn of a loop a time step.

Shapes as in chain.py. Steps run over the rows that are still running alone, longest first.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.common.arrays import IntArray
from runner.layers.crf.chain import Chain, wide
from runner.ragged.rows import Rows

FEW_TAGS = 32  # up to which numpy's steps are faster than torch's on a CPU (docs/notes/performance.md)
FloatArray = npt.NDArray[np.floating]


@torch.no_grad()
def viterbi(scores: Tensor, chain: Chain, rows: Rows) -> tuple[Tensor, Tensor]:
    """(N,) int64 packed: the tags of each row's best path; (B,) its score, 0 for empty rows.

    Of equally good paths it takes the one whose tags, read from the row's end, are smallest. Where no path is allowed
    the score is -inf and the tags mean nothing.

    Args:
        scores: (N, C) packed; log probabilities, if a tagger without a chain is to be constrained.
        chain: of the same C tags.
        rows: where rows begin and end.
    """
    best = torch.zeros(rows.n_rows, dtype=wide(scores), device=scores.device)
    if rows.n_tokens == 0:
        return torch.zeros(0, dtype=torch.int64, device=scores.device), best
    time, chain = rows.time_major, chain.to(best.dtype)
    own, last = scores.to(best.dtype).index_select(0, time.tokens), time.inverse.index_select(0, rows.ends[1])
    on_host = scores.device.type == "cpu" and scores.shape[1] <= FEW_TAGS
    paths = _paths_on_host if on_host else _paths
    found, highest = paths(own, chain, time.batch_sizes.numpy().tolist(), last)
    return found.index_select(0, time.inverse), best.index_copy_(0, time.row_order, highest)


@torch.no_grad()
def k_best(scores: Tensor, chain: Chain, rows: Rows, k: int) -> tuple[Tensor, Tensor]:
    """(N, K) int64 packed: the tags of each row's K best paths, the best first; (B, K) their scores.

    Where a row has fewer allowed paths the scores of the others are -inf and their tags mean nothing. An empty row has
    one path, of score 0.

    Args:
        scores: (N, C) packed.
        chain: of the same C tags.
        rows: where rows begin and end.
        k: at least 1.
    """
    best = torch.full((rows.n_rows, k), -torch.inf, dtype=wide(scores), device=scores.device)
    best[:, 0] = 0.0
    if rows.n_tokens == 0:
        return torch.zeros(0, k, dtype=torch.int64, device=scores.device), best
    time, chain = rows.time_major, chain.to(best.dtype)
    running, n_tags = time.batch_sizes.numpy().tolist(), scores.shape[1]
    steps = torch.split(scores.to(best.dtype).index_select(0, time.tokens), running)
    first = (steps[0] + chain.start)[:, None, :]
    reached, pointers = [F.pad(first, (0, 0, 0, k - 1), value=-torch.inf)], []  # (n, K, C)
    for n, own in zip(running[1:], steps[1:], strict=True):
        ways = reached[-1][:n, :, :, None] + chain.transitions
        highest, pointer = ways.flatten(1, 2).topk(k, dim=1)
        reached.append(highest + own[:, None, :])
        pointers.append(pointer.flatten(1))
    last = time.inverse.index_select(0, rows.ends[1])
    highest, places = (torch.cat(reached).index_select(0, last) + chain.end).flatten(1).topk(k, dim=1)
    found = _trace(places, pointers, running) % n_tags
    return found.index_select(0, time.inverse), best.index_copy_(0, time.row_order, highest)


def _paths(own: Tensor, chain: Chain, running: list[int], last: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the tags of the best paths, time-major, and (R,) their scores.

    Args:
        own: (N, C) the tags' own scores, time-major.
        chain: of the same C tags and dtype.
        running: rows that are still running at each step.
        last: (R,) the place of each row's last token.
    """
    # tags are channels, as pooling wants it: (n, C, 1, 1)
    steps = torch.split(own[:, :, None, None], running)
    moves = chain.transitions[:, None, :]
    reached, pointers = [steps[0] + chain.start[:, None, None]], []
    for n, scores in zip(running[1:], steps[1:], strict=True):
        highest, pointer = _best_previous(reached[-1].narrow(0, 0, n) + moves)
        reached.append(highest + scores)
        pointers.append(pointer)
    highest, tags = (torch.cat(reached).flatten(1).index_select(0, last) + chain.end).max(1)
    return _trace(tags[:, None, None, None], pointers, running).flatten(), highest


@np.errstate(over="ignore")  # huge scores add up to inf, as in torch
def _paths_on_host(own: Tensor, chain: Chain, running: list[int], last: Tensor) -> tuple[Tensor, Tensor]:
    """As `_paths`. Which tag a best path came from is sought on its way back alone: the same sums, the same maxima."""
    start, moves, end = (one.detach().numpy() for one in (chain.start, chain.transitions, chain.end))
    places = [slice(stop - n, stop) for n, stop in zip(running, accumulate(running), strict=True)]
    reached = own.detach().numpy().T.copy()  # (C, N): sums run over rows, which are more than tags
    reached[:, places[0]] += start[:, None]
    for n, before, here in zip(running[1:], places, places[1:], strict=False):
        reached[:, here] += _highest_previous(reached[:, before][:, :n], moves)
    reached, moves = np.ascontiguousarray(reached.T), np.ascontiguousarray(moves.T)  # (N, C), (to, from)
    ends = reached[last.numpy()] + end
    tags: IntArray = ends.argmax(1)
    found = np.empty(len(own), dtype=np.int64)
    found[places[-1]] = tags[: running[-1]]
    for here, n, following in zip(places[-2::-1], running[-2::-1], running[:0:-1], strict=True):
        tags[:following] = (reached[here][:following] + moves[tags[:following]]).argmax(1)
        found[here] = tags[:n]
    return torch.from_numpy(found), torch.from_numpy(ends.max(1))


def _highest_previous(reached: FloatArray, moves: FloatArray) -> FloatArray:
    """(to, n) the largest over the previous tag, of (from, n) and (from, to)."""
    highest: FloatArray = (reached[:, None, :] + moves[:, :, None]).max(0)
    return highest


def _best_previous(ways: Tensor) -> tuple[Tensor, Tensor]:
    """(n, to, 1, 1) the largest over the previous tag, and which (of equal ones the first); ways are (n, from, 1, to).

    On a CPU pooling over channels that lie last does the same as `Tensor.max`, at 50 tags in a fifth of its time.
    """
    channels_last = ways.permute(0, 3, 1, 2)
    if ways.device.type != "cpu":
        return channels_last.max(2, keepdim=True)
    return F.max_pool2d_with_indices(channels_last, (ways.shape[1], 1))


def _trace(places: Tensor, pointers: list[Tensor], running: list[int]) -> Tensor:
    """(N, K, ...) time-major: the places that paths went through.

    Args:
        places: (R, K, ...) the last place of each of K paths, longest row first.
        pointers: for each step but the first (n, places, ...): where the best path to each place came from.
        running: rows that are still running at each step.
    """
    ending = [n - following for n, following in zip(running, [*running[1:], 0], strict=True)]
    last = torch.split(places, ending[::-1])[::-1]  # by the step at which rows end
    found = [last[-1]]
    for step in range(len(running) - 2, -1, -1):
        here = pointers[step].gather(1, found[-1])
        found.append(torch.cat([here, last[step]]) if ending[step] else here)
    return torch.cat(found[::-1])
