"""`init_from=RUN`: a new run starts from the vocabularies and the parameters of another run's best checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runner.common.class_names import with_stable_names
from runner.common.errors import HydromelError
from runner.common.records import InitFromRecord
from runner.common.run_names import find_run
from runner.config.saved import saved_model
from runner.config.schema import ModelConfig, Plain, RunConfig
from runner.data.numericalize import TARGET
from runner.experiment.resumption import differences, shown
from runner.inference.trained import read_vocabs
from runner.model import Model
from runner.text.vocab import Vocab
from runner.tracking.run_folder import read_run
from runner.training.checkpoint import Checkpoint, checkpoint_path

log = logging.getLogger(__name__)
_HEAD = "head."  # prefix of the head's own parameters; shared ones have the embedding's names
_SHOWN_LABELS = 5


@dataclass(frozen=True)
class Source:
    """The run that another one starts from."""

    folder: Path
    config: ModelConfig
    vocabs: Mapping[str, Vocab]
    best: Checkpoint

    @classmethod
    def read(cls, config: RunConfig, causal: bool) -> Self | None:
        """Return the run that the config names, or None; nothing of it is built.

        `causal`: whether the task is a language model, whose vocabularies need special tokens.

        Raises:
            HydromelError: there is no such run, it has no checkpoint or a damaged one, or its features differ.
        """
        if config.init_from is None:
            return None
        folder = find_run(config.init_from, Path(config.runs_dir)) or Path(config.init_from)
        saved = saved_model(folder, config.plugins)
        features = (with_stable_names(each.features) for each in (saved, config))
        for key, before, now in differences("features", *features):
            raise HydromelError(
                f"init_from={folder}: {key}={shown(now)}, but that run has {shown(before)}; its vocabulary is used, so "
                "features must be the same"
            )
        vocabs = read_vocabs(folder, [*config.features] if causal else [])
        if missing := [name for name in config.features if name not in vocabs]:
            raise HydromelError(
                f"init_from={folder}: its vocabs.json lacks '{missing[0]}'; restore it or use another run"
            )
        return cls(folder, saved, vocabs, Checkpoint.read(checkpoint_path(folder, "best")))

    def fill(self, model: Model, config: RunConfig, vocabs: Mapping[str, Vocab]) -> InitFromRecord:
        """Copy the parameters into a new model, those of the head only if task and labels are the same.

        Return the record of it. Raises HydromelError for the first parameter that does not fit.
        """
        before, now = self.vocabs[TARGET].learned.tokens, vocabs[TARGET].learned.tokens
        same_task = self.config.task["name"] == config.task["name"]
        keeps_head = same_task and before == now
        self.best.fill(model, leave_out="" if keeps_head else _HEAD)
        updates = self.best.progress.updates
        why_new = "" if keeps_head else f"; the head is new, since {_why(before, now, same_task)}"
        log.info("init_from=%s: parameters after %d updates%s", self.folder, updates, why_new)
        for key, other, own in _options_that_differ(self.config, config):
            log.info("init_from=%s: %s=%s, but that run has %s", self.folder, key, shown(own), shown(other))
        run_id = read_run(self.folder)["run_id"]
        return {
            "folder": str(self.folder),
            "run_id": run_id,
            "updates": updates,
            "head": "kept" if keeps_head else "new",
        }


def _why(before: Sequence[str], now: Sequence[str], same_task: bool) -> str:
    """Return the reason for a new head."""
    if not same_task:
        return "the task differs"
    only = {"this": set(now) - set(before), "that": set(before) - set(now)}
    names = [f"only {which} run has {_some(labels)}" for which, labels in only.items() if labels]
    return f"the labels differ: {'; '.join(names) or 'their order'}"


def _some(labels: set[str]) -> str:
    first = ", ".join(map(shown, sorted(labels)[:_SHOWN_LABELS]))
    return first if len(labels) <= _SHOWN_LABELS else f"{first} and {len(labels) - _SHOWN_LABELS} more"


def _options_that_differ(before: ModelConfig, now: RunConfig) -> list[tuple[str, object, object]]:
    """Return the options of embedding and encoder that differ although the parameters fit, such as dropout."""

    def nodes(config: ModelConfig) -> Plain:
        return with_stable_names({"embedding": config.embedding, "encoder": config.encoder})

    return list(differences("", nodes(before), nodes(now)))
