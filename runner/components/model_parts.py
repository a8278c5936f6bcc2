"""The parts of a model: the task, the data set, features, and factories of the embedding and the encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from runner.common.class_names import with_stable_names
from runner.components.measures import Measures
from runner.config.instantiate import Factory, build
from runner.config.schema import ModelConfig
from runner.interfaces import Corpus, Embedding, Encoder, Metric, Task
from runner.text.features import TokenFeature


@dataclass(frozen=True)
class ModelParts:
    """The parts that read text for a model and build the model."""

    task: Task
    task_key: str  # the task's options as text; targets depend on them
    measures: Measures
    corpus: Corpus  # nothing of it is read yet
    features: dict[str, TokenFeature]  # integer columns of each token, by name
    embedding: Factory[Embedding]  # waits for `vocabs`
    encoder: Factory[Encoder]  # waits for `input_size`, `causal` and `carries_state`

    @classmethod
    def of(cls, config: ModelConfig, plugins: Sequence[str]) -> ModelParts:
        """Build the parts that do not need data, and check the others; `plugins` are modules that the user allowed.

        Raises:
            HydromelError: a target that is not allowed or does not exist, or an unknown, missing or ill-typed option.
        """
        task: Task = build(config.task, "task", {}, plugins, Task)
        added: Metric | None = None if config.metric is None else build(config.metric, "metric", {}, plugins, Metric)
        return cls(
            task=task,
            task_key=json.dumps(with_stable_names(config.task), sort_keys=True),
            measures=Measures.of(task, added),
            corpus=build(config.dataset, "dataset", {}, plugins, Corpus),
            features={
                name: build(node, f"features.{name}", {}, plugins, TokenFeature)
                for name, node in config.features.items()
            },
            embedding=Factory[Embedding].of(config.embedding, "embedding", plugins, Embedding),
            encoder=Factory[Encoder].of(config.encoder, "encoder", plugins, Encoder),
        )
