"""The audit of a configured model under the batching strategies that fit its task."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from runner.audit.checks.auditor import DTYPES, Arithmetic, Auditor, arithmetic_verdict
from runner.audit.checks.compare import SingleReference
from runner.audit.checks.dropout import dropout_verdict, own_dropout_verdict
from runner.audit.checks.metric import metric_verdict
from runner.audit.checks.update import update_verdict
from runner.audit.checks.verdict import Report, Verdict
from runner.audit.subjects.model import ModelSubject
from runner.audit.subjects.sample import sample, streams, with_random_ids
from runner.audit.subjects.stream import StreamSubject
from runner.audit.tracing.module_state import Mode, in_mode, unchanged, with_dropout
from runner.audit.tracing.nonzero_init import randomise_zero_weights
from runner.audit.tracing.observe import Setting, observe
from runner.batching.auto import Auto
from runner.batching.stream import Stream
from runner.common.errors import HydromelError
from runner.components.model_parts import ModelParts
from runner.components.run_components import build_batching
from runner.config.schema import Node, RunConfig, name_of
from runner.data.load import arrange, load_data
from runner.data.numericalize import Data
from runner.data.truncation import Truncation
from runner.model import Model, build_model, device_of, parameter_count
from runner.profiling.kernels import FLOAT32_LSTM, KernelWatch
from runner.training.checkpoint import load_checkpoint
from runner.training.setup import choose_device

Strategy = ModelSubject | StreamSubject
STREAMS, WINDOWS = 4, 3  # number of streams of a text, and of windows of each stream
DROPOUT = 0.5  # rate of all dropout layers in the dropout check
UPDATE_ROWS = 8  # largest batch size, so that a sample makes several updates


@dataclass(frozen=True)
class Options:
    """The options of an audit of a config.

    Attributes:
        rows: number of examples, at least 8.
        longest: largest number of tokens; longer rows are cut.
        random: use random ids instead of the corpus's.
        modes: modes of the module.
        arithmetics: arithmetics besides float64.
        heat: include heat maps of modules by positions.
        explained: find place and cause of the failures of controls too.
        weights: a checkpoint whose weights are audited; None: fresh weights.
    """

    rows: int = 20
    longest: int = 60
    random: bool = False
    modes: tuple[Mode, ...] = ("eval", "train")
    arithmetics: tuple[Arithmetic, ...] = ("float32", "bf16")
    heat: bool = True
    explained: bool = True
    weights: Path | None = None


def audit_config(configs: Sequence[RunConfig], left_out: Mapping[str, str], options: Options) -> Report:
    """Audit one model under several strategies; those that ignore the mask are controls, unless there is no other.

    Args:
        configs: at least one config; they differ in `batching` only.
        left_out: name -> reason, for strategies that do not compose and are listed as left out.
        options: size and extent of the audit.

    Raises:
        HydromelError: bad input, or no strategy fits.
    """
    started = time.perf_counter()
    config = configs[0]
    torch.manual_seed(config.seed)
    parts = ModelParts.of(config, config.plugins)
    data = load_data(parts, Truncation(config.max_length, config.truncate), config.cache_dir)
    model = build_model(parts, data.vocabs)
    if options.weights is None:
        randomise_zero_weights(model, config.seed)
    else:
        load_checkpoint(options.weights, model)
    model.to(device=choose_device(config.device, config.precision, config.dtype), dtype=torch.float64)
    subjects, unfit = _subjects(configs, left_out, parts, data, model, options)
    report = Report(f"task={parts.task.name} dataset={name_of(config.dataset)} encoder={_chosen(config)}")
    controls = tuple(subject.name for subject in subjects if _ignores_mask(subject))
    report.controls = controls if len(controls) < len(subjects) else ()
    _audit(report, subjects, options, config.seed)
    report.facts = {
        "examples": len(subjects[0].lengths),
        "lengths": sorted(int(length) for length in subjects[0].lengths),
        "parameters": parameter_count(model),
        "weights": "fresh" if options.weights is None else str(options.weights),
        "content": "random ids" if options.random else "the corpus",
        "arithmetics": ["float64", *options.arithmetics],
        "left out": unfit,
        "torch": torch.__version__,
        "device": str(device_of(model)),
        "seconds": time.perf_counter() - started,
        "computed otherwise": _computed_otherwise(subjects[0]) if "bf16" in options.arithmetics else "",
    }
    return report


def _computed_otherwise(subject: Strategy) -> str:
    """Return a sentence if a layer computes in float32 where bf16 is checked; empty otherwise."""
    cast = _reference(subject).cast("bf16")
    with KernelWatch() as watch, torch.no_grad():
        observe(cast, [int(cast.lengths.argmax())], Setting())
    if FLOAT32_LSTM not in watch.seen:
        return ""
    return "bf16: LSTMs were computed in float32, since this processor has no bfloat16 LSTM; the rest in bfloat16."


def _audit(report: Report, subjects: Sequence[Strategy], options: Options, seed: int) -> None:
    """Run all modes and arithmetics.

    Single-example runs are shared by all strategies, and strategies of the same layout share the verdicts on it:
    otherwise the cost would grow with the number of strategies.
    """
    model = subjects[0].module
    for mode in options.modes:
        layouts: dict[Any, list[Verdict]] = {}
        with in_mode(model, mode):
            exact = SingleReference(_reference(subjects[0]), torch.float64)
            for subject in subjects:
                auditor = Auditor(subject, mode, exact.of(subject), seed, explained=_is_explained(subject, options))
                key = _layout(subject)
                if key not in layouts:
                    layouts[key] = list(auditor.verdicts())
                report.verdicts += [replace(verdict, subject=subject.name) for verdict in layouts[key]]
                report.verdicts += _check_strategy(auditor, subject, mode, seed)
                if mode == "eval" and options.heat:
                    report.heats.append(auditor.heat(subject.tokens))
        for arithmetic in options.arithmetics:
            report.verdicts += _check_arithmetic(subjects, exact, arithmetic, mode, seed, options)
    model.train()
    with with_dropout(model, DROPOUT):
        report.verdicts += _check_dropout(subjects, seed, options)


def _check_dropout(subjects: Sequence[Strategy], seed: int, options: Options) -> Iterator[Verdict]:
    """Check that copies of an example drop different values, and that its own seed makes dropout batch-invariant."""
    row = int(subjects[0].lengths.argmax())
    layouts: dict[Any, Verdict] = {}
    alone: SingleReference | None = None
    for subject in subjects:
        if (key := _layout(subject)) not in layouts:
            verdict = dropout_verdict(subject, row)
            if verdict.passed and isinstance(subject, ModelSubject):  # windows of a stream bring no seeds
                alone = alone or SingleReference(_reference(subject.with_seeds()), torch.float64)
                with_seeds = subject.with_seeds()
                verdict = own_dropout_verdict(with_seeds, alone.of(with_seeds), seed, _is_explained(subject, options))
            layouts[key] = verdict
        yield replace(layouts[key], subject=subject.name)


def _check_strategy(auditor: Auditor, subject: Strategy, mode: Mode, seed: int) -> Iterator[Verdict]:
    """Yield the verdicts on a strategy's own batches, updates and evaluation, which its layout does not determine."""
    batches = subject.batches(seed)
    yield auditor.batches(batches)
    with unchanged(subject.module):
        if mode == "train":
            yield update_verdict(subject, auditor.alone, batches)
        else:
            rows = auditor.alone.comparable(range(len(subject.lengths)))
            yield metric_verdict(subject.name, subject.figures, list(rows))


def _layout(subject: Strategy) -> Any:
    """Return a key that is equal for strategies that lay out the same examples in the same way."""
    batching = subject.batching
    if isinstance(batching, Stream):
        return batching
    return batching.layout, batching.micro_batch, batching.width_multiple


def _check_arithmetic(
    subjects: Sequence[Strategy],
    exact: SingleReference,
    arithmetic: Arithmetic,
    mode: Mode,
    seed: int,
    options: Options,
) -> Iterator[Verdict]:
    """Yield the verdict on each strategy in a coarser arithmetic; one cast copy of the model serves all of them."""
    first = _reference(subjects[0]).cast(arithmetic)
    with in_mode(first.module, mode):
        alone = SingleReference(first, DTYPES[arithmetic], exact=exact)
        layouts: dict[Any, Verdict] = {}
        for subject in subjects:
            cast = replace(subject, module=first.module, bf16=first.bf16)
            if (key := _layout(subject)) not in layouts:
                explained = _is_explained(subject, options)
                layouts[key] = arithmetic_verdict(cast, alone.of(cast), arithmetic, mode, seed, explained)
            yield replace(layouts[key], subject=subject.name)


def _subjects(
    configs: Sequence[RunConfig],
    left_out: Mapping[str, str],
    parts: ModelParts,
    data: Data,
    model: Model,
    options: Options,
) -> tuple[list[Strategy], dict[str, str]]:
    """Return a subject for each strategy that fits the task, and the reason for each other one by name."""
    fitting, unfit = [], dict(left_out)
    for config in configs:
        try:
            fitting.append(_subject(config, parts, data, model, options))
        except HydromelError as error:
            unfit[str(config.choices["batching"])] = str(error)
    if not fitting:
        raise HydromelError(next(iter(unfit.values())))
    return fitting, unfit


def _subject(config: RunConfig, parts: ModelParts, data: Data, model: Model, options: Options) -> Strategy:
    """Return a strategy over a sample of the training split, with small updates, so that there are several.

    Raises:
        HydromelError: the strategy is `auto`, or does not fit the task.
    """
    batching = build_batching(_small(config.batching), config.plugins)
    if isinstance(batching, Auto):
        raise HydromelError("batching=auto only chooses among the other strategies; audit those by name")
    train = data.splits["train"]
    arrange(parts, batching, train, config.max_length)  # raises if the strategy does not fit the task
    if isinstance(batching, Stream):
        text = streams(train, STREAMS, WINDOWS * min(batching.window, options.longest))
        text = with_random_ids(text, data.vocabs, config.seed) if options.random else text
        return StreamSubject(batching.name, model, text.to(device_of(model)), batching, parts.task, data.vocabs)
    examples = sample(train, options.rows, options.longest, config.seed)
    examples = with_random_ids(examples, data.vocabs, config.seed) if options.random else examples
    return ModelSubject(batching.name, model, examples.to(device_of(model)), batching, parts.task, data.vocabs)


def _small(node: Node) -> Node:
    """Return a strategy's config with at most `UPDATE_ROWS` rows in a batch."""
    size, plan = node.get("batch_size"), node.get("plan")
    if not isinstance(size, int):
        return node
    small = min(size, UPDATE_ROWS)
    shrunk = {"plan": {**plan, "batch_size": small}} if isinstance(plan, dict) else {}
    return {**node, "batch_size": small, **shrunk}


def _reference(subject: Strategy) -> Strategy:
    """Return the subject in the reference layout: packed, so without padding."""
    if isinstance(subject, StreamSubject):
        return subject
    return replace(subject, batching=replace(subject.batching, layout="packed", micro_batch=None))


def _ignores_mask(subject: Strategy) -> bool:
    return isinstance(subject, ModelSubject) and subject.batching.layout == "unmasked"


def _is_explained(subject: Strategy, options: Options) -> bool:
    return options.explained or not _ignores_mask(subject)


def _chosen(config: RunConfig) -> str:
    """Return the encoder's name, as chosen or from its config."""
    return config.choices.get("encoder") or name_of(config.encoder)
