"""Abilities of a model's parts (`runner.interfaces.Has...`) are asked for by protocol, in parts of any origin."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.interfaces import Description
from runner.layers.dropout import Dropout, WeightDrop
from runner.model import counters, descriptions, has_randomness
from runner.ragged.batch import Batch
from runner.training.memory_check import unchanged
from runner.training.optimizers import parameters_by_rate


class ThirdParty(nn.Module):
    """A part with every ability."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.slow, self.normal = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        self.learning_rate_factors = {"slow": 0.1}
        self.noise, self.seen = noise, 0
        self.register_buffer("mean", torch.zeros(2))
        self.mean: Tensor

    @property
    def has_randomness(self) -> bool:
        return self.noise > 0

    def statistics(self) -> list[Tensor]:
        return [self.mean]

    def counters(self) -> dict[str, dict[str, int]]:
        return {"rows": {"seen": self.seen}}

    def describe(self, splits: Mapping[str, Batch]) -> Description:
        return Description("third_party", {"splits": list(splits)}, None)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        self.mean.add_(x.mean(dim=0))
        return x * self.slow + self.normal + self.noise * torch.rand_like(x)


def test_reports_and_counts_of_all_parts_are_collected() -> None:
    model = nn.Sequential(ThirdParty(), nn.Linear(2, 2), ThirdParty())
    model(torch.ones(3, 2))
    assert counters(model) == {"rows": {"seen": 6}}
    assert counters(nn.Linear(2, 2)) == {}
    assert [description.entry for description in descriptions(model, {})] == [{"splits": []}, {"splits": []}]


def test_parameters_learn_at_their_part_s_rate() -> None:
    part = ThirdParty()
    plain, slow = parameters_by_rate(nn.Sequential(nn.Linear(2, 2), part))
    assert (plain["learning_rate_factor"], slow["learning_rate_factor"]) == (1.0, 0.1)
    assert slow["params"] == [part.slow]
    assert part.normal in set(plain["params"])


def test_weight_decay_leaves_out_vectors_and_nothing_is_made_of_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 3))
    model[0].weight.requires_grad_(False)
    (everything,) = parameters_by_rate(model)
    assert len(everything["params"]) == 5
    matrices, vectors = parameters_by_rate(model, decay_vectors=False)
    assert matrices["params"] == [model[2].weight]
    assert "weight_decay" not in matrices
    assert vectors["weight_decay"] == 0.0
    optimizer = torch.optim.AdamW(parameters_by_rate(model, decay_vectors=False), lr=0.5, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"2.weight"}


def test_the_memory_check_restores_statistics_and_names_other_buffers_that_change() -> None:
    model = nn.Sequential(ThirdParty(noise=1.0), ThirdParty())
    state = torch.get_rng_state()
    with unchanged(model, torch.device("cpu")):
        model(torch.ones(3, 2))
    assert all(part.mean.tolist() == [0.0, 0.0] for part in model)
    assert torch.equal(state, torch.get_rng_state())
    other = nn.BatchNorm1d(2)
    with (
        pytest.raises(HydromelError, match="the model changes num_batches_tracked"),
        unchanged(other, torch.device("cpu")),
    ):
        other(torch.ones(3, 2))


@pytest.mark.parametrize(
    ("part", "random"),
    [
        (ThirdParty(noise=0.5), True),
        (ThirdParty(), False),
        (Dropout(0.1), True),
        (Dropout(0.0), False),
        (WeightDrop(0.1), True),
        (WeightDrop(0.0), False),
        (nn.Dropout(0.5), True),
        (nn.Dropout2d(0.0), False),
        (nn.LSTM(2, 2, num_layers=2, dropout=0.5), True),
        (nn.LSTM(2, 2), False),
        (nn.MultiheadAttention(2, 1, dropout=0.5), True),
        (nn.TransformerEncoderLayer(2, 1, dropout=0.0), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_random_parts_are_recognised(part: nn.Module, random: bool) -> None:
    assert has_randomness(nn.Sequential(nn.Linear(2, 2), part)) is random
