"""The check `dropout`: each example must draw a dropout mask of its own, the same in any batch."""

from __future__ import annotations

import torch

from runner.audit.checks import kinds
from runner.audit.checks.auditor import Auditor, observe_seeded
from runner.audit.checks.compare import SingleReference
from runner.audit.checks.locate import first_random, module_label
from runner.audit.checks.variations import BatchSpec, batch_specs
from runner.audit.checks.verdict import Finding, Verdict
from runner.audit.tracing.observe import Subject

COPIES = 8  # copies of an example in one batch: fewer may drop the same few values by chance


def dropout_verdict(subject: Subject, row: int) -> Verdict:
    """Check that copies of one example in one batch, with dropout on, draw different masks."""
    batch = BatchSpec((row,) * COPIES)
    first, second = (observe_seeded(subject, batch, seed) for seed in (1, 2))
    if first.error is not None or all(map(torch.equal, first.outputs, second.outputs)):
        return Verdict(subject.name, "dropout", "train", None, reason="no dropout is on")
    if any(not torch.equal(output, first.outputs[0]) for output in first.outputs[1:]):
        return Verdict(subject.name, "dropout", "train", True)
    detail = "All copies of an example in one batch drop the same values, and other values in the next run."
    module = module_label(subject, first_random(subject, batch))
    finding = Finding(module, kinds.SHARED_DROPOUT, "output", batch.rows, 0.0, 0.0, detail)
    return Verdict(subject.name, "dropout", "train", False, torch.inf, finding)


def own_dropout_verdict(subject: Subject, reference: SingleReference, seed: int, explained: bool) -> Verdict:
    """Check that an example with its own dropout seed drops the same values in a batch as reference."""
    auditor = Auditor(subject, "train", reference, seed, explained=explained)
    batches = batch_specs(subject.lengths, subject.has_padding, seed)
    runs = [run for check in ("order", "duplicates", "mixed_lengths", "extremes", "width") for run in batches[check]]
    return auditor.verdict("dropout", auditor.differences(runs, []), runs)
