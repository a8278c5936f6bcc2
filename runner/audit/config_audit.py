"""The audit of a configured model under the batching strategies that fit its task."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from runner.audit.checks import kinds
from runner.audit.checks.auditor import Arithmetic, Auditor, arithmetic_verdict, dropout_verdict
from runner.audit.checks.causality import causality_verdict
from runner.audit.checks.compare import SingleReference, compare_loss
from runner.audit.checks.metric import metric_verdict
from runner.audit.checks.variations import BatchSpec
from runner.audit.checks.verdict import AuditFacts, AuditReport, Finding, Verdict
from runner.audit.subjects.configured import ModelSubject, StreamSubject, sample, streams, with_random_ids
from runner.audit.tracing.module_state import Mode, in_mode, randomise_zero_weights, unchanged, with_dropout
from runner.audit.tracing.observe import Observation, Setting, observe
from runner.common.dtypes import DTYPES
from runner.common.errors import HydromelError
from runner.components.found_options import completed
from runner.components.model_parts import ModelParts
from runner.components.run_components import build_strategy, with_batch_size
from runner.config.schema import RunConfig, name_of
from runner.data.numericalize import Data, arrange, load_data
from runner.data.truncation import Truncation
from runner.interfaces import START, Loss, StreamStrategy
from runner.model import Model, build_model, device_of, learn_scale, parameter_count
from runner.profiling.kernels import FLOAT32_LSTM, KernelWatch
from runner.ragged.ragged import Ragged
from runner.terminal.progress import stage, track
from runner.training.checkpoint import load_checkpoint
from runner.training.loop import backward
from runner.training.setup import choose_device

StrategySubject = ModelSubject | StreamSubject
STREAMS, WINDOWS = 4, 3  # number of streams of a text, and of windows of each stream
DROPOUT = 0.5  # rate of all dropout layers in the dropout check
# the dropout check runs the batches of these checks
OWN_DROPOUT = ("order", "duplicates", "mixed_lengths", "extremes", "width")
UPDATE_ROWS = 8  # largest batch size, so that a sample makes several updates


@dataclass(frozen=True)
class AuditOptions:
    """The options of an audit of a config."""

    rows: int = 20  # number of examples, at least 8
    longest: int = 60  # largest number of tokens; longer rows are cut
    random: bool = False  # use random ids instead of the corpus's
    modes: tuple[Mode, ...] = ("eval", "train")
    arithmetics: tuple[Arithmetic, ...] = ("float32", "bf16")  # arithmetics besides float64
    heat: bool = True  # include heat maps of modules by positions
    explained: bool = True  # find place and cause of the failures of controls too
    weights: Path | None = None  # a checkpoint whose weights are audited; None: fresh weights

    def explains(self, subject: StrategySubject) -> bool:
        return self.explained or not subject.ignores_mask


def audit_config(configs: Sequence[RunConfig], left_out: Mapping[str, str], options: AuditOptions) -> AuditReport:
    """Audit one model under several strategies; those that ignore the mask are controls, unless all do.

    Args:
        configs: at least one config; they differ in `batching` only.
        left_out: name -> reason, for strategies that do not compose and are listed as left out.

    Raises:
        HydromelError: bad input, or no strategy fits.
    """
    started = time.perf_counter()
    config = configs[0]
    if config.init_from is not None:
        raise HydromelError(f"init_from={config.init_from} has no effect on an audit; give --weights FILE")
    torch.manual_seed(config.seed)
    config, parts = completed(config, ModelParts.of(config, config.plugins), config.plugins)
    data = load_data(parts, Truncation(config.max_length, config.truncate), config.cache_dir)
    model = build_model(parts, data.vocabs)
    if options.weights is None:
        learn_scale(model, data.splits["train"])
        randomise_zero_weights(model, config.seed)
    else:
        load_checkpoint(options.weights, model)
    model.to(device=choose_device(config.device, config.precision, config.dtype), dtype=torch.float64)
    subjects, unfit = [], dict(left_out)
    for strategy in configs:
        try:
            subjects.append(_subject(strategy, parts, data, model, options))
        except HydromelError as error:
            unfit[str(strategy.choices["batching"])] = str(error)
    if not subjects:
        raise HydromelError(next(iter(unfit.values())))
    encoder = config.choices.get("encoder") or name_of(config.encoder)
    controls = tuple(subject.name for subject in subjects if subject.ignores_mask)
    report = AuditReport(
        f"task={parts.task.name} dataset={name_of(config.dataset)} encoder={encoder}",
        controls=controls if len(controls) < len(subjects) else (),
    )
    causal = parts.task.causal and isinstance(subjects[0].examples.target, Ragged)
    _audit(report, subjects, options, config.seed, causal)
    report.facts = AuditFacts(
        examples=len(subjects[0].lengths),
        lengths=sorted(subjects[0].lengths.tolist()),
        parameters=parameter_count(model),
        weights="fresh" if options.weights is None else str(options.weights),
        content="random ids" if options.random else "the corpus",
        arithmetics=["float64", *options.arithmetics],
        left_out=unfit,
        torch=torch.__version__,
        device=str(device_of(model)),
        seconds=time.perf_counter() - started,
        precision_note=_precision_note(subjects[0]) if "bf16" in options.arithmetics else "",
    )
    return report


def _precision_note(subject: StrategySubject) -> str:
    """Return a sentence if a layer computes in float32 where bf16 is checked; else an empty string."""
    cast = subject.reference().cast("bf16")
    with KernelWatch() as watch, torch.no_grad():
        observe(cast, [int(cast.lengths.argmax())], Setting())
    note = "The check bf16 computed LSTMs in float32, because this processor has no bfloat16 LSTM."
    return note if FLOAT32_LSTM in watch.seen else ""


def _audit(
    report: AuditReport, subjects: Sequence[StrategySubject], options: AuditOptions, seed: int, causal: bool
) -> None:
    """Run all modes and arithmetics; with `causal`, also check that no token's output depends on later tokens.

    To save time, all strategies share the single-example runs, and strategies of the same layout share its verdicts.
    """
    model = subjects[0].module
    for mode in options.modes:
        layouts: dict[Hashable, list[Verdict]] = {}
        with in_mode(model, mode):
            exact = SingleReference(subjects[0].reference(), torch.float64)
            first = subjects[0].reference()
            causality = causality_verdict(first, exact, mode) if causal else None
            for subject in track(subjects, f"auditing, mode {mode}", len(subjects)):
                auditor = Auditor(subject, mode, exact.of(subject), seed, explained=options.explains(subject))
                if (key := subject.layout_key) not in layouts:
                    layouts[key] = list(auditor.verdicts())
                report.verdicts += [replace(verdict, subject=subject.name) for verdict in layouts[key]]
                if causality is not None:  # checked in one layout; other checks compare the layouts
                    report.verdicts.append(replace(causality, subject=subject.name))
                report.verdicts += _check_strategy(auditor, subject, mode, seed)
                if mode == "eval" and options.heat:
                    report.heats.append(auditor.heat(subject.tokens))
        for arithmetic in track(options.arithmetics, f"auditing arithmetic, mode {mode}", len(options.arithmetics)):
            report.verdicts += _check_arithmetic(subjects, exact, arithmetic, mode, seed, options)
    model.train()
    with with_dropout(model, DROPOUT), stage("auditing dropout"):
        report.verdicts += _check_dropout(subjects, seed, options)


def _by_layout(subjects: Sequence[StrategySubject], check: Callable[[StrategySubject], Verdict]) -> Iterator[Verdict]:
    """Yield a verdict on each strategy; those of the same layout share one."""
    layouts: dict[Hashable, Verdict] = {}
    for subject in subjects:
        if (key := subject.layout_key) not in layouts:
            layouts[key] = check(subject)
        yield replace(layouts[key], subject=subject.name)


def _check_dropout(subjects: Sequence[StrategySubject], seed: int, options: AuditOptions) -> Iterator[Verdict]:
    """Check that copies of an example drop different values, and that its own seed makes dropout batch-invariant."""
    row = int(subjects[0].lengths.argmax())
    reference: SingleReference | None = None

    def check(subject: StrategySubject) -> Verdict:
        nonlocal reference
        verdict = dropout_verdict(subject, row)
        if not verdict.passed or isinstance(subject, StreamSubject):  # windows of a stream carry no seeds
            return verdict
        seeded = subject.with_seeds()
        reference = reference or SingleReference(seeded.reference(), torch.float64)
        auditor = Auditor(seeded, "train", reference.of(seeded), seed, explained=options.explains(subject))
        return auditor.over("dropout", OWN_DROPOUT)

    return _by_layout(subjects, check)


def _check_strategy(auditor: Auditor, subject: StrategySubject, mode: Mode, seed: int) -> Iterator[Verdict]:
    """Yield the verdicts on a strategy's own batches, updates and evaluation, which its layout does not determine."""
    batches = subject.batches(seed)
    yield auditor.verdict("batches", batches)
    with unchanged(subject.module):
        if mode == "train":
            yield _update_verdict(subject, auditor.reference, batches)
        else:
            rows = auditor.reference.comparable(range(len(subject.lengths)))
            yield metric_verdict(subject.name, subject.figures, list(rows))


def _check_arithmetic(
    subjects: Sequence[StrategySubject],
    exact: SingleReference,
    arithmetic: Arithmetic,
    mode: Mode,
    seed: int,
    options: AuditOptions,
) -> Iterator[Verdict]:
    """Yield the verdict on each strategy in a coarser arithmetic; one cast copy of the model serves all of them."""
    first = subjects[0].reference().cast(arithmetic)
    with in_mode(first.module, mode):
        reference = SingleReference(first, DTYPES[arithmetic], exact=exact)

        def check(subject: StrategySubject) -> Verdict:
            cast = replace(subject, module=first.module, bf16=first.bf16)
            explained = options.explains(subject)
            return arithmetic_verdict(cast, reference.of(cast), arithmetic, mode, seed, explained)

        yield from _by_layout(subjects, check)


def _update_verdict(subject: StrategySubject, reference: SingleReference, updates: Sequence[BatchSpec]) -> Verdict:
    """Compare loss and gradients of the runner's own `backward` with the sum over single-example runs.

    The model is in train mode, without dropout; `updates` are those of the strategy.
    """
    detail, worst = "The training loop's update differs from the sum over its examples.", 0.0
    for rows in filter(None, (reference.comparable(update.rows) for update in updates)):
        for difference in compare_loss(reference, BatchSpec(rows), _run_update(subject, rows)):
            worst = max(worst, difference.share)
            if difference.share > 1.0:
                size, allowed = difference.size, difference.allowed
                finding = Finding("loss", kinds.LOSS, difference.quantity, rows, size, allowed, detail)
                return Verdict(subject.name, "update", "train", False, difference.share, finding)
    return Verdict(subject.name, "update", "train", True, worst)


def _run_update(subject: StrategySubject, rows: Sequence[int]) -> Observation:
    """Run one update as training does, and return sums instead of means, for comparison with the examples' sums."""
    micro_batches, model = subject.update(rows), subject.module
    count = sum(batch.n_targets for batch in micro_batches)
    model.zero_grad()
    loss, _ = backward(model, micro_batches, count, START, False, lambda lap: None)
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense() * max(1, count)
        for name, parameter in model.named_parameters()
    }
    model.zero_grad()
    return Observation(loss=Loss(loss * max(1, count), count), loss_gradients=gradients)


def _subject(config: RunConfig, parts: ModelParts, data: Data, model: Model, options: AuditOptions) -> StrategySubject:
    """Return a strategy over a sample of the training split, with small updates, so that there are several.

    Raises:
        HydromelError: the strategy is `auto`, or does not fit the task.
    """
    size = config.batching.get("batch_size")
    small = with_batch_size(config.batching, min(size, UPDATE_ROWS)) if isinstance(size, int) else config.batching
    batching = build_strategy(small, config.plugins)
    train = data.splits["train"]
    arrange(parts, batching, train, config.max_length)  # raises if the strategy does not fit the task
    if isinstance(batching, StreamStrategy):
        examples = streams(train, STREAMS, WINDOWS * min(batching.window, options.longest))
    elif batching.carries_state:
        raise HydromelError(f"batching={batching.name}: to audit it, give it the methods of StreamStrategy")
    else:
        examples = sample(train, options.rows, options.longest, config.seed)
    examples = with_random_ids(examples, data.vocabs, config.seed) if options.random else examples
    examples = examples.to(device_of(model))
    if isinstance(batching, StreamStrategy):
        return StreamSubject(batching.name, model, examples, batching, parts.measures, data.vocabs)
    return ModelSubject(batching.name, model, examples, batching, parts.measures, data.vocabs)
