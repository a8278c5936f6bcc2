"""Words that training has not seen, and how a finished model looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import pyarrow as pa
from torch import nn

from runner.text.features import TokenFeature
from runner.text.vocab import Vocab


@runtime_checkable
class Admits(Protocol):
    """A module that knows more of a new word than that it is `<unk>`: its characters, or its vector in a file."""

    def admit(self, vocabs: Mapping[str, Vocab]) -> None:
        """Take vocabularies with more words behind those that it was made for, in place of any given before."""
        ...


def admit(
    model: nn.Module, vocabs: Mapping[str, Vocab], features: Mapping[str, TokenFeature], table: pa.Table
) -> dict[str, Vocab]:
    """Make a model ready for new text: its new words get ids, are spelt, and are looked up in files of vectors.

    For text in pieces, give the vocabularies of training each time: the words of an earlier piece are forgotten, so
    memory stays that of one piece. Nothing is learned, and what is known stays as it is. A checkpoint is loaded before,
    and the model is not saved afterwards.

    Args:
        vocabs: of training (`Data.vocabs`).
        features: those whose `extend` is true have ids for all words, as in training.
        table: with the features' columns.

    Returns:
        The vocabularies by which `table` is numericalised (`runner.data.numericalize.columns_of`).
    """
    grown = dict(vocabs)
    for name, feature in features.items():
        if feature.extend:
            grown[name] = vocabs[name].extended([feature.strings(table)])
    for module in model.modules():
        if isinstance(module, Admits):
            module.admit(grown)
    return grown
