"""The options that may change when a run is resumed, and checks that everything else is the same.

The criterion: after the run, its config must be true of every update, those made before the interruption included.
So it may change when training ends, where it computes and what is written, but neither model, data, batches nor rates.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.common import run_schema
from runner.common.class_names import with_stable_names
from runner.common.errors import HydromelError
from runner.common.records import ChangeRecord, parse_run
from runner.config.schema import NOTES, Plain, RunConfig, TrainSettings
from runner.data.numericalize import Data
from runner.interfaces import Schedule
from runner.text.vocab import Vocab
from runner.training.checkpoint import Checkpoint, checkpoint_path
from runner.training.state import PLANS, Origin

MAY_CHANGE = {  # option, or section of options -> what it decides
    "train.epochs": "when training ends",
    "train.max_updates": "when training ends",
    "train.patience": "when training ends",
    "train.checkpoint_every": "what is written, and when",
    "train.log_every": "what is written, and when",
    "train.eval_batch_size": "how much memory evaluation needs",
    "train.rehearse": "whether a lack of memory shows at the start",
    "predictions": "what is written after training",
    "baselines": "what is written after training",
    "run_plots": "what is written after training",
    "system_metrics_s": "what is written, and when",
    "device": "where it computes",
    "threads": "where it computes",
    "ranks": "where it computes",
    "shard": "where it computes",
    "malloc": "where it computes",
    "tracker": "where records go",
    "runs_dir": "where other runs lie",
    "cache_dir": "where the data lie",
    "data_dir": "where the data lie; they are compared",
}
_MODEL, _DATA = "the parameters belong to the other model", "the updates so far read other data"
_STEPS, _NAME = "the updates so far were made with the other value", "it is part of the run's name"
_ARITHMETIC = "the updates so far were computed in the other arithmetic"
MUST_STAY = {  # option, or section of options -> the reason
    "seed": "the rows of every update follow from it",
    "batching": "the checkpoint counts updates of the other batches, so that rows would be skipped or read twice",
    "train.metric": "the best checkpoint so far was chosen by the other figure",
    "metric": "the best checkpoint so far was chosen by the other figure",
    "train.clip_norm": _STEPS,
    "train.decay_vectors": _STEPS,
    "train.row_dropout": _STEPS,
    "train.warmup_updates": "the speed so far leaves out other updates",
    "optimizer": _STEPS,
    "schedule": _STEPS,
    "dtype": _ARITHMETIC,
    "precision": _ARITHMETIC,
    "matmul": _ARITHMETIC,
    "task": _MODEL,
    "features": _MODEL,
    "embedding": _MODEL,
    "encoder": _MODEL,
    "init_from": "the run started from the other parameters",
    "dataset": _DATA,
    "max_length": _DATA,
    "truncate": _DATA,
    "tokenizer": _DATA,
    "unicode": _DATA,
    "turn": _NAME,
    "repeat": _NAME,
    "sweep": _NAME,
    "search": _NAME,
}
# options of this command only, and the names of nodes, whose contents are compared
_NOT_COMPARED = ("resume", "plugins", *NOTES)


def origin_of(config: RunConfig, data: Data) -> Origin:
    """Return what the run is trained on and with, for its checkpoints."""
    return Origin(_plain(config), data.fingerprint, _described(data.vocabs), PLANS)


def check_plans(folder: Path, origin: Origin) -> None:
    """Raise HydromelError if the run was trained by a version that planned other updates."""
    if origin.plans != PLANS:
        raise HydromelError(
            f"{folder}: another version of Hydromel trained this run, with other updates (plans {origin.plans}; here "
            f"{PLANS}), so it cannot go on here; train again, or start from its parameters with init_from="
        )


def _plain(config: RunConfig) -> dict[str, object]:
    """Return all options, those with defaults included, as JSON values with the stable names of classes."""
    return with_stable_names(config.model_dump(mode="json"))


def _described(vocabs: Mapping[str, Vocab]) -> dict[str, str]:
    """Return the size and the hash of each vocabulary as text."""
    plain = {name: json.dumps(vocab.to_plain(), sort_keys=True).encode() for name, vocab in vocabs.items()}
    digests = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in plain.items()}
    return {name: f"{len(vocab):,} strings with hash {digests[name]}" for name, vocab in vocabs.items()}


def nothing_left(config: RunConfig, folder: Path) -> bool:
    """Return True if the folder holds a result, and the config leaves nothing more to train.

    Such a run may still lack its plots, its model card and the delivery of its records, if it ended before them.

    Raises:
        HydromelError: the run is finished and says so in `run.json`, which is written last.
    """
    if not (folder / run_schema.RESULT).exists():
        return False
    last, record, limit = checkpoint_path(folder, "last"), folder / run_schema.RUN, config.train
    progress = Checkpoint.read(last).progress if last.exists() else None
    if progress is not None and not progress.is_over(limit):
        return False
    if not record.exists() or parse_run(record.read_bytes(), str(record))["status"] == run_schema.FINISHED:
        made = "" if progress is None else f" after {progress.updates:,} updates"
        raise HydromelError(
            f"{folder}: this run is finished{made}; to train it further, raise what ended it (train.epochs="
            f"{limit.epochs}, train.max_updates={shown(limit.max_updates)}, train.patience={shown(limit.patience)}), "
            "or choose another folder (hydra.run.dir)"
        )
    return True


def check_options(folder: Path, before: Plain, now: RunConfig, not_chosen: bool) -> None:
    """Raise HydromelError if an option that must stay is not as in the config `before` of the folder's checkpoint.

    With `not_chosen`, `batching=auto` will choose the strategy that it chose `before`.
    """
    for key, old, new in differences("", before, _plain(now)):
        if _entry(key, MAY_CHANGE) is None and not (not_chosen and key.startswith("batching.")):
            reason = _entry(key, MUST_STAY) or "the updates so far were made without it"
            raise HydromelError(
                f"{folder}: {key}={shown(new)}: a resumed run must keep {key}={shown(old)}: "
                f"{reason}. {what_else(folder)}"
            )


def changes(before: Plain, now: RunConfig, updates: int) -> list[ChangeRecord]:
    """Return the changed options of training and of the machine, for `run.json`; the others are only about files.

    `updates` is the number of updates made before.
    """
    return [
        {"option": key, "updates": updates, "before": old, "after": new}
        for key, old, new in differences("", before, _plain(now))
        if key.startswith("train.") or key in ("device", "threads", "ranks", "shard", "malloc")
    ]


def what_else(folder: Path) -> str:
    """Return the sentence on what may change, and on how to start a new run."""
    return (
        f"These may change: {', '.join(MAY_CHANGE)}. A new run starts from this one's parameters by init_from={folder}"
    )


def check_data(folder: Path, before: Origin, data: Data, data_dir: str | None) -> None:
    """Raise HydromelError if the data or the vocabularies are not those of the folder's checkpoint."""
    if data.fingerprint != before.fingerprint:
        where = "" if data_dir is None else f" in {Path(data_dir).absolute()}"
        raise HydromelError(
            f"{folder}: the data{where} have the fingerprint {data.fingerprint[:16]}, but the run was trained on data "
            f"with the fingerprint {before.fingerprint[:16]}; restore its data, or start a new run"
        )
    vocabs = _described(data.vocabs)
    for name in sorted(before.vocabs.keys() | vocabs.keys()):
        if (old := before.vocabs.get(name, "nothing")) != (new := vocabs.get(name, "nothing")):
            raise HydromelError(
                f"{folder}: the vocabulary of '{name}' has {new}, but the run was trained with {old}; restore what it "
                "was made of, or start a new run"
            )


def check_rates(folder: Path, before: Schedule, now: Schedule, updates: int) -> None:
    """Raise HydromelError if the schedule would have had other rates in the updates so far, given what may change.

    A schedule that spans the whole run, such as linear, depends on the number of updates in all.
    """
    for update in range(updates):
        if (old := before.factor(update)) != (new := now.factor(update)):
            raise HydromelError(
                f"{folder}: train.epochs and train.max_updates cannot change under this schedule, which spans the "
                f"whole run: the learning rate of update {update + 1} was {old:.6g} times the full one, and would have "
                f"been {new:.6g} times. {what_else(folder)}"
            )


def limits_of(before: Origin, now: TrainSettings) -> TrainSettings:
    """Return the settings with the limits of training that the checkpoint's config had.

    Raises:
        KeyError, ValidationError: that config has no such settings, or of another type.
    """
    old = TrainSettings.model_validate(before.config["train"])
    return now.model_copy(update={"epochs": old.epochs, "max_updates": old.max_updates})


def differences(key: str, before: object, now: object) -> Iterator[tuple[str, object, object]]:
    """Yield the dotted key of each option below `key` that differs, with both values.

    Options of the run itself that are newer than its checkpoint do not differ.
    """
    if not isinstance(before, Mapping) or not isinstance(now, Mapping) or key in MAY_CHANGE:
        if before != now:
            yield key, before, now
        return
    names = dict.fromkeys((*before, *now))
    if key in ("", "train"):
        names = dict.fromkeys(name for name in before if name in now and name not in _NOT_COMPARED)
    for name in names:
        inner = f"{key}.{name}" if key else name
        if not inner.endswith(".data_dir"):  # nested `data_dir` options follow the root option
            yield from differences(inner, before.get(name), now.get(name))


def _entry(key: str, table: Mapping[str, str]) -> str | None:
    """Return the entry of the table for an option, or for the section that it is in."""
    return next((text for name, text in table.items() if key == name or key.startswith(f"{name}.")), None)


def shown(value: object) -> str:
    """Return a value as it is written in YAML or Python, cut if it is long."""
    return "null" if value is None else reprlib.repr(value)
