"""The counts of each split's rows, tokens and targets: how many are used, and how many are not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from runner.common.records import DataRecord
from runner.data.truncation import Truncation
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab

SHOWN = 12  # most labels to list that the training set lacks, in messages and records


def count_split(whole: Batch, used: Batch, labels: Vocab) -> DataRecord:
    """Return the counts of a split that is in memory, see `SplitCounts.add`; `labels` are the possible targets."""
    counts = SplitCounts(labels)
    counts.add(whole, used)
    return counts.record()


class SplitCounts:
    """The counts of a split, from blocks of its rows.

    Args:
        labels: the possible targets; those that only valid or test has are `extra`.
    """

    def __init__(self, labels: Vocab) -> None:
        self._labels, self._counts = labels, Counter[str]()
        self._unseen = np.zeros(labels.extra, dtype=np.int64)

    def add(self, whole: Batch, used: Batch) -> None:
        """Count a block before (`whole`) and after (`used`) rows were cut."""
        if isinstance(whole.target, Ragged):
            of_cut = np.zeros(0, dtype=np.int64) if used.cut is None else used.cut.on_host()
            cut_targets = int((of_cut != IGNORED).sum())
            ignored = whole.left_out + int((whole.targets_on_host() == IGNORED).sum())
        else:
            cut_targets, ignored = 0, whole.left_out
        self._counts.update(
            rows=len(used.index),
            tokens=used.real_tokens,
            targets=used.n_targets,
            ignored=ignored,
            cut_rows=int((whole.lengths > used.lengths).reshape(len(used.index), whole.texts).any(axis=1).sum()),
            cut_tokens=whole.real_tokens - used.real_tokens,
            cut_targets=cut_targets,
            empty_rows=int((whole.lengths == 0).reshape(len(whole.index), whole.texts).any(axis=1).sum()),
        )
        if self._labels.extra:
            ids = whole.targets_on_host()
            self._unseen += np.bincount(
                ids[ids >= self._labels.known] - self._labels.known, minlength=len(self._unseen)
            )

    def record(self) -> DataRecord:
        """Return all counts; of the labels that the training set lacks the most frequent ones are named."""
        labels = self._labels
        order = np.argsort(-self._unseen, kind="stable")
        unseen = {
            labels.tokens[labels.known + place]: int(self._unseen[place])
            for place in order.tolist()
            if self._unseen[place]
        }
        counts = self._counts
        return {
            "rows": counts["rows"],
            "tokens": counts["tokens"],
            "targets": counts["targets"],
            "ignored": counts["ignored"],
            "cut_rows": counts["cut_rows"],
            "cut_tokens": counts["cut_tokens"],
            "cut_targets": counts["cut_targets"],
            "empty_rows": counts["empty_rows"],
            "unseen_labels": len(unseen),
            "unseen_targets": sum(unseen.values()),
            "unseen": dict([*unseen.items()][:SHOWN]),
        }


def describe_counts(counts: Mapping[str, DataRecord], truncation: Truncation) -> Iterator[str]:
    """Yield a line for the console about each kind of tokens and targets that are not used as they are."""
    parts = [
        f"{name} {split['cut_tokens']:,} tokens of {split['cut_rows']:,} rows"
        for name, split in counts.items()
        if split["cut_tokens"]
    ]
    if parts:
        evaluated = [name for name in counts if name != "train" or len(counts) == 1]
        missed = [f"{name} {cut:,}" for name in evaluated if (cut := counts[name]["cut_targets"])]
        consequence = f"; targets among them, which count as missed: {', '.join(missed)}" if missed else ""
        options = f"max_length={truncation.max_length}, truncate={truncation.keep}"
        yield f"{options} cuts off {', '.join(parts)}{consequence}"
    if parts := [f"{name} {split['empty_rows']:,}" for name, split in counts.items() if split["empty_rows"]]:
        yield f"warning: rows with an empty text, used as they are: {', '.join(parts)}"
    if parts := [f"{name} {split['ignored']:,}" for name, split in counts.items() if split["ignored"]]:
        yield f"ignored targets (missing, -100 or task.ignore), out of loss, metrics and counts: {', '.join(parts)}"
    for name, split in counts.items():
        if split["unseen_targets"]:
            labels = ", ".join(f"{label} {count:,}" for label, count in split["unseen"].items())
            more = ", ..." if split["unseen_labels"] > len(split["unseen"]) else ""
            yield (
                f"targets of {name} whose label the training set lacks: {split['unseen_targets']:,} ({labels}{more}); "
                "they count as missed and have no loss (task.strict=true refuses them)"
            )
