"""Options that the training set decides, which are not in the config until the data set is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from runner.components.model_parts import ModelParts
from runner.config.schema import ModelConfig, Node
from runner.interfaces import DescribesFiles, HasFoundOptions, read_blocks

AUTO = "auto"
C = TypeVar("C", bound=ModelConfig)
_found: dict[tuple[str, str], Mapping[str, object]] = {}  # keyed by the task's options and the data set's fingerprint


def completed(config: C, parts: ModelParts, plugins: Sequence[str]) -> tuple[C, ModelParts]:
    """Return the config with a value for every option of the task that is `auto`, and the parts of that config.

    An option of the data set that is `auto` gets the value of the task's option of the same name. The data set's config
    is also completed with information from its files (`DescribesFiles`). Data are read only if that is needed. `parts`
    are those of the config.

    Raises:
        HydromelError: the data cannot be read, or do not decide an option.
    """
    task, dataset = config.task, config.dataset
    if isinstance(parts.task, HasFoundOptions) and AUTO in task.values():
        key = parts.task_key, parts.corpus.fingerprint()
        if key not in _found:
            _found[key] = parts.task.find_options(read_blocks(parts.corpus)["train"])
        task = _replaced(task, _found[key])
    dataset = _replaced(dataset, task)
    if isinstance(parts.corpus, DescribesFiles):
        dataset = {**dataset, **parts.corpus.describe_files()}
    if (task, dataset) == (config.task, config.dataset):
        return config, parts
    config = config.changed(task=task, dataset=dataset)
    return config, ModelParts.of(config, plugins)


def _replaced(node: Node, values: Mapping[str, object]) -> Node:
    return {name: values.get(name, value) if value == AUTO else value for name, value in node.items()}
