"""The best path through each row (Viterbi 1967), with one Python iteration per time step and none per token.

Shapes as in `runner.layers.crf.chain`. A step runs over the rows that are still running, longest first.

Two implementations: `_paths` for any device, and `_paths_on_host` by numpy, which is faster on a CPU for few tags.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.common.arrays import IntArray
from runner.layers.crf.chain import Chain, accumulation_dtype
from runner.layers.crf.padded import padded_viterbi
from runner.ragged.rows import Rows

MAX_NUMPY_TAGS = 32  # tags up to which numpy's steps are faster than torch's on a CPU (docs/notes/performance.md)
FloatArray = npt.NDArray[np.floating]


@torch.no_grad()
def viterbi(scores: Tensor, chain: Chain, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the tags of each row's best path, (N,) int64 packed, and its score, (B,), 0 for empty rows.

    Among equally good paths, the one with the smallest tags, read from the row's end, is chosen. If no path is allowed,
    the score is -inf and the tags are arbitrary.

    `scores` are (N, C) packed; log probabilities to constrain a tagger that has no chain of its own.
    """
    best = torch.zeros(rows.n_rows, dtype=accumulation_dtype(scores), device=scores.device)
    if rows.n_tokens == 0:
        return torch.zeros(0, dtype=torch.int64, device=scores.device), best
    if not rows.on_host:
        rectangle = scores.to(best.dtype).view(rows.n_rows, rows.width, -1)
        tags, best = padded_viterbi(rectangle, chain.to(best.dtype), rows.mask)
        return tags.flatten(), best
    time, chain = rows.time_major, chain.to(best.dtype)
    own, last = scores.to(best.dtype).index_select(0, time.tokens), time.inverse.index_select(0, rows.ends[1])
    on_host = scores.device.type == "cpu" and scores.shape[1] <= MAX_NUMPY_TAGS
    paths = _paths_on_host if on_host else _paths
    tags, highest = paths(own, chain, time.batch_sizes.numpy().tolist(), last)
    return tags.index_select(0, time.inverse), best.index_copy_(0, time.row_order, highest)


def _paths(own: Tensor, chain: Chain, running: list[int], last: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tags of the best paths, (N,) time-major, and their scores, (R,).

    `own` are the tags' own scores (N, C), time-major, `running` the rows of each step, `last` (R,) where rows end.
    """
    # On the way forward, each tag of a step keeps the best score of a path that reaches it and a pointer to the tag
    # before it on that path. Tags are the channel dimension that `_best_previous` pools over: (n, C, 1, 1).
    steps = torch.split(own[:, :, None, None], running)
    transitions = chain.transitions[:, None, :]
    reached, pointers = [steps[0] + chain.start[:, None, None]], []
    for n, scores in zip(running[1:], steps[1:], strict=True):
        highest, pointer = _best_previous(reached[-1].narrow(0, 0, n) + transitions)
        reached.append(highest + scores)
        pointers.append(pointer.flatten(1))
    highest, tags = (torch.cat(reached).flatten(1).index_select(0, last) + chain.end).max(1)
    return _trace(tags, pointers, running), highest


@np.errstate(over="ignore")  # huge scores add up to inf, as in torch
def _paths_on_host(own: Tensor, chain: Chain, running: list[int], last: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `_paths` with numpy."""
    # The way forward keeps maxima only. The tag that a best path came from is recomputed on the way back, for that one
    # path: the sums are the same, so their maximum is at the same tag, and no (N, C) pointers are computed or stored.
    start, transitions, end = (part.detach().numpy() for part in chain)
    steps = [slice(stop - n, stop) for n, stop in zip(running, accumulate(running), strict=True)]
    reached = own.detach().numpy().T.copy()  # (C, N): the inner loop runs over rows, of which there are more
    reached[:, steps[0]] += start[:, None]
    for n, before, here in zip(running[1:], steps, steps[1:], strict=False):
        reached[:, here] += _highest_previous(reached[:, before][:, :n], transitions)
    reached, to_from = np.ascontiguousarray(reached.T), np.ascontiguousarray(transitions.T)  # (N, C), (C, C)
    ends = reached[last.numpy()] + end
    tags: IntArray = ends.argmax(1)
    path = np.empty(len(own), dtype=np.int64)
    path[steps[-1]] = tags[: running[-1]]
    for here, n, following in zip(steps[-2::-1], running[-2::-1], running[:0:-1], strict=True):
        tags[:following] = (reached[here][:following] + to_from[tags[:following]]).argmax(1)
        path[here] = tags[:n]
    return torch.from_numpy(path), torch.from_numpy(ends.max(1))


def _highest_previous(reached: FloatArray, transitions: FloatArray) -> FloatArray:
    """Return the largest sum over the previous tag, (to, n), of `reached` (from, n) and `transitions` (from, to)."""
    highest: FloatArray = (reached[:, None, :] + transitions[:, :, None]).max(0)
    return highest


def _best_previous(paths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest of `paths` (n, from, 1, to) over the previous tag, (n, to, 1, 1), and the first such tag.

    On a CPU, max pooling in the channels-last format equals `Tensor.max` and takes a fifth of its time at 50 tags.
    """
    channels_last = paths.permute(0, 3, 1, 2)
    if paths.device.type != "cpu":
        return channels_last.max(2, keepdim=True)
    return F.max_pool2d_with_indices(channels_last, (paths.shape[1], 1))


def _trace(last_tags: Tensor, pointers: list[Tensor], running: list[int]) -> Tensor:
    """Return the tags of each path, (N,) time-major, from its last tag (R,), longest row first.

    `pointers` hold for each step but the first, (n, C), the tag before each tag; `running` are the rows of each step.
    """
    # Going back in time, rows join when their own last step is reached. Rows are sorted by length, so those that end at
    # a step are the last rows of that step, and are appended behind the rows already being traced.
    ending = [n - following for n, following in zip(running, [*running[1:], 0], strict=True)]
    joining = torch.split(last_tags, ending[::-1])[::-1]  # for each step, the rows that end there
    traced = [joining[-1]]
    for step in range(len(running) - 2, -1, -1):
        here = pointers[step].gather(1, traced[-1][:, None])[:, 0]
        traced.append(torch.cat([here, joining[step]]) if ending[step] else here)
    return torch.cat(traced[::-1])
