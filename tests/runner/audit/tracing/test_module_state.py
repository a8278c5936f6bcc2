from __future__ import annotations

import torch
from torch import nn

from runner.audit.tracing.module_state import randomise_zero_weights
from runner.cli.audit import main


def test_zero_weights_are_drawn_and_padding_stays_zero() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(5, 3, padding_idx=0), "linear": nn.Linear(3, 2)})
    nn.init.zeros_(model["table"].weight)  # type: ignore[arg-type]
    before = model["linear"].weight.clone()
    randomise_zero_weights(model, seed=1)
    assert not model["table"].weight[0].any()
    assert model["table"].weight[1:].all()
    assert torch.equal(model["linear"].weight, before)


def test_a_linear_model_initialised_to_zero_is_audited_with_random_weights() -> None:
    """The control fails, which it could not with zero weights."""
    assert main(["experiment=svm", "embedding.buckets=50", "cache_dir=null", "threads=1"]) == 0
