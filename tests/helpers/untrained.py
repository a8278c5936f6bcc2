"""Models with random weights in place of trained ones: for tests that need no training."""

from __future__ import annotations

import torch

from runner.data.truncation import Truncation
from runner.inference.trained import TrainedModel
from runner.model import build_model
from tests.helpers.composed import QUIET, data_of, parts, run_config


def untrained(*overrides: str) -> TrainedModel:
    """A model as it is before training, with the vocabularies of its data set."""
    config = run_config(*QUIET, *overrides)
    made, data = parts(config), data_of(config)
    torch.manual_seed(3)
    model = build_model(made, data.vocabs).eval()
    truncation = Truncation(config.max_length, config.truncate)
    return TrainedModel(
        made.task, made.measures, model, made.features, data.vocabs, made.corpus, truncation, config.malloc
    )
