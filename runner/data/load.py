"""Load the configured data set as integers, and arrange its training rows as the strategy wants them."""

from __future__ import annotations

from pathlib import Path

from runner.common.errors import HydromelError
from runner.components.model_parts import ModelParts
from runner.data.numericalize import Data, load
from runner.data.truncation import Truncation
from runner.interfaces import BatchingStrategy, StrategyChooser
from runner.ragged.batch import Batch


def load_data(parts: ModelParts, truncation: Truncation, cache_dir: str | None) -> Data:
    """Return the data set of a model's parts as integers, from the folder `cache_dir` if it is cached there.

    `cache_dir` may start with `~`; None: no cache.

    Raises:
        HydromelError: the data set cannot be read, or a split has no examples.
    """
    if not parts.features:
        raise HydromelError("features={}: at least one is needed, for example features=words")
    cache = None if cache_dir is None else Path(cache_dir).expanduser()
    data = load(parts.corpus, parts.features, parts.task, parts.task_key, truncation, cache)
    for name, split in data.splits.items():
        if not split.rows.n_rows:
            raise HydromelError(f"dataset={parts.corpus.name}: {name} has no examples")
    return data


def arrange(
    parts: ModelParts, batching: BatchingStrategy | StrategyChooser, train: Batch, max_length: int | None
) -> Batch:
    """Return the rows of training as the strategy wants them.

    Raises:
        HydromelError: the task reads one text and the strategy independent rows, or vice versa; or `max_length` is
            set for a single text.
    """
    one_text = parts.task.carries_state
    if one_text != batching.carries_state:
        reads = "one text" if one_text else "independent rows"
        raise HydromelError(
            f"task.unit=stream and batching=stream go together; got task={parts.task.name} ({reads}) and "
            f"batching={batching.name}"
        )
    if one_text and max_length is not None:
        raise HydromelError(f"max_length={max_length} cuts rows, and a stream has only one; use max_length=null")
    return batching.arrange(train)


def describe_data(name: str, data: Data, truncation: Truncation) -> str:
    """Return one line for the console about the data set `name`."""
    sizes = ", ".join(f"{split} {batch.rows.n_rows:,}" for split, batch in data.splits.items())
    tokens = data.splits["train"].real_tokens
    words = ", ".join(f"{len(vocab):,} {feature}" for feature, vocab in data.vocabs.items())
    where = "from the cache" if data.cached else "read"
    cut, longest = data.truncated_tokens["train"], truncation.max_length
    kept = f" ({cut:,} more cut off: max_length={longest}, truncate={truncation.keep})" if cut else ""
    return f"{name} ({where}): rows {sizes}; {tokens:,} training tokens{kept}; vocabulary {words}"
