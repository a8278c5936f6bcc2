"""The parts of a model: the task, the data set, features, and factories of the embedding and the encoder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from runner.common.class_names import PROJECT, TARGET, with_stable_names
from runner.common.errors import HydromelError
from runner.components.measures import Measures
from runner.config.instantiate import Factory, build
from runner.config.schema import ModelConfig
from runner.interfaces import Corpus, Embedding, Encoder, IgnoresTargets, Metric, Task
from runner.text.features import TokenFeature
from runner.text.tokenizers import WHITESPACE, HasTokenizer, Tokenizer


@dataclass(frozen=True)
class ModelParts:
    """The parts that read text for a model and build the model."""

    task: Task
    task_key: str  # the task's options as text; targets depend on them
    measures: Measures
    corpus: Corpus  # not read yet
    features: dict[str, TokenFeature]  # integer columns of each token, by name
    embedding: Factory[Embedding]  # built once it is given `vocabs`
    encoder: Factory[Encoder]  # built once it is given `input_size`, `causal` and `carries_state`

    @classmethod
    def of(cls, config: ModelConfig, plugins: Sequence[str]) -> ModelParts:
        """Build the parts that do not need data, and check the others; `plugins` are modules that the user allowed.

        Raises:
            HydromelError: a target that is not allowed, does not exist or lacks a member of its role's protocol, or an
                option that is unknown, missing, ill-typed or does not fit the task.
        """
        task: Task = build(config.task, "task", {}, plugins, Task)
        added: Metric | None = None if config.metric is None else build(config.metric, "metric", {}, plugins, Metric)
        encoder = Factory[Encoder].of(config.encoder, "encoder", plugins, nn.Module, Encoder)
        _check_encoder(encoder, task)
        return cls(
            task=task,
            task_key=json.dumps(with_stable_names(config.task), sort_keys=True),
            measures=Measures.of(task, added),
            corpus=_corpus(config, plugins, task.ignore if isinstance(task, IgnoresTargets) else ()),
            features={
                name: build(node, f"features.{name}", {"unicode": config.unicode}, plugins, TokenFeature)
                for name, node in config.features.items()
            },
            embedding=Factory[Embedding].of(config.embedding, "embedding", plugins, nn.Module, Embedding),
            encoder=encoder,
        )


def _corpus(config: ModelConfig, plugins: Sequence[str], ignored: Sequence[str | int]) -> Corpus:
    """Build the data set; raise HydromelError if it has tokens, and a tokenizer other than white space is set.

    `ignored` are the targets that the task ignores.
    """
    node = config.tokenizer
    tokenizer = WHITESPACE if node is None else build(node, "tokenizer", {}, plugins, Tokenizer)
    corpus: Corpus = build(
        config.dataset, "dataset", {"tokenizer": tokenizer, "ignored_tags": ignored}, plugins, Corpus
    )
    if tokenizer != WHITESPACE and not isinstance(corpus, HasTokenizer):
        chosen = config.choices.get("tokenizer") or type(tokenizer).__name__
        raise HydromelError(
            f"tokenizer={chosen} splits raw text, but dataset={corpus.name} has tokens already; use "
            "tokenizer=whitespace"
        )
    return corpus


def _check_encoder(encoder: Factory[Encoder], task: Task) -> None:
    """Raise HydromelError unless an encoder's class is known to be causal where the task needs it, and its options fit.

    An encoder of this project accepts any input size. So one is built as a trial before the size is known, without
    using memory or random numbers. A plugin's encoder is built once its input size is known.
    """
    target = encoder.target
    if task.causal and "causal" not in inspect.signature(target).parameters and not getattr(target, "causal", False):
        raise HydromelError(
            f"encoder: the constructor of {target.__qualname__} lacks causal, which task={task.name} sets, so it may "
            "read the next token; take it as Encoder in runner.interfaces says, or set the class attribute "
            "causal = True if it never reads later tokens"
        )
    if str(encoder.node[TARGET]).startswith(PROJECT):
        with torch.device("meta"), torch.random.fork_rng(devices=()):
            encoder(input_size=1, causal=task.causal, carries_state=task.carries_state)
