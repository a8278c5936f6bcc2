"""Words that are not in the training set, and how a trained model represents them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import pyarrow as pa
from torch import nn

from runner.text.features import TokenFeature
from runner.text.vocab import Vocab


@runtime_checkable
class ExtendsVocabulary(Protocol):
    """A module that can represent new words better than by `<unk>`: by their characters, or by vectors in a file."""

    def extend_vocabulary(self, vocabs: Mapping[str, Vocab]) -> None:
        """Use vocabularies that append new words to the original ones, replacing those of an earlier call."""


def extend_vocabulary(
    model: nn.Module, vocabs: Mapping[str, Vocab], features: Mapping[str, TokenFeature], table: pa.Table
) -> dict[str, Vocab]:
    """Prepare a model for new text: give its new words ids, spell them, and look them up in vector files.

    For text in chunks, pass the training vocabularies each time: the words of the previous chunk are forgotten, so
    memory stays that of one chunk. Nothing is trained, and known words do not change. Load the checkpoint before, and
    do not save the model afterwards.

    Args:
        vocabs: the training vocabularies (`Data.vocabs`).
        features: the model's features; those with `extend` get ids for all words, as in training.
        table: the new text, with the features' columns.

    Returns:
        The vocabularies with which to numericalise `table` (`runner.data.numericalize.columns_of`).
    """
    new = {name: [feature.strings(table)] for name, feature in features.items() if feature.extend}
    extended = {**vocabs, **{name: vocabs[name].extend(strings) for name, strings in new.items()}}
    for module in model.modules():
        if isinstance(module, ExtendsVocabulary):
            module.extend_vocabulary(extended)
    return extended
