"""The law of times and the probe: laws are found again, what is timed is what strategies train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from runner.advisor.advisor import fastest
from runner.advisor.speed_probe import Candidate, MicroBatchKind, SpeedProbe, fit_seconds, speed_terms
from runner.common.errors import HydromelError
from runner.common.records import CandidateRecord
from runner.components.run_components import optimizer_factory
from runner.config.instantiate import build
from runner.model import build_model
from runner.ragged.shapes import Shapes
from runner.training.setup import build_optimizer
from tests.helpers.composed import config, data_of, label_files, parts, run_config


def random_shapes(n: int) -> Shapes:
    rng = np.random.default_rng(0)
    rows, widths = rng.integers(2, 40, n), rng.integers(3, 200, n)
    return Shapes.of(rows, widths, (rows * widths * rng.uniform(0.3, 1.0, n)).astype(np.int64))


@pytest.mark.parametrize("weights", [[1e-3, 2e-6, 0, 0, 0], [5e-4, 0, 3e-6, 0, 2e-5], [1e-3, 1e-6, 1e-6, 2e-8, 1e-5]])
def test_a_law_is_found_again_though_some_measurements_were_disturbed(weights: list[float]) -> None:
    shapes = random_shapes(60)
    exact = speed_terms(shapes) @ np.array(weights)
    disturbed = exact.copy()
    disturbed[::5] *= 4.0
    actual = speed_terms(shapes) @ fit_seconds(speed_terms(shapes), disturbed)
    np.testing.assert_allclose(actual, exact, rtol=0.02)


def test_one_measurement_is_taken_to_go_with_places() -> None:
    item = Shapes.of(np.array([4]), np.array([10]), np.array([40]))
    twice = Shapes.of(np.array([8]), np.array([10]), np.array([80]))
    weights = fit_seconds(speed_terms(item), np.array([0.5]))
    assert (speed_terms(twice) @ weights).item() == pytest.approx(1.0)


def made(folder: Path, *overrides: str) -> tuple[SpeedProbe, dict[str, Candidate]]:
    options = run_config(*label_files(folder), "encoder=conv", "encoder.filters=4", "cache_dir=null", *overrides)
    data = data_of(options)
    train = data.splits["train"]
    model = build_model(parts(options), data.vocabs)
    candidates = {}
    for name in ("size1", "padmask", "packed", "bucketed", "same_length"):
        batching = build(config(f"batching={name}", "batching.batch_size=6")["batching"], "batching", {})
        candidates[name] = Candidate(name, batching, train, batching.updates(train.rows.host_lengths, 1, 0))
    optimizer = build_optimizer(optimizer_factory(options), model)
    return SpeedProbe(model, parts(options).task, optimizer, 5.0, False), candidates


def test_seconds_are_the_laws_sum_over_all_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, candidates = made(tmp_path)

    def by_places(self: SpeedProbe, kind: MicroBatchKind, rows: np.ndarray) -> float:
        self._run(kind, rows)
        return 0.5 + float(kind.shape(rows, False).cells[0])

    monkeypatch.setattr(SpeedProbe, "_seconds", by_places)
    monkeypatch.setattr(SpeedProbe, "_step", lambda self: 100.0)
    actual = dict(zip(candidates, probe.predict(list(candidates.values()), 0.2), strict=True))
    for name, candidate in candidates.items():
        expected = (
            0.5 * len(candidate.shapes(False).rows)
            + candidate.shapes(False).cells.sum()
            + 100.0 * len(candidate.updates)
        )
        assert actual[name] == pytest.approx(expected, rel=0.02), name


def test_pieces_are_rows_of_one_micro_batch_with_its_longest(tmp_path: Path) -> None:
    probe, candidates = made(tmp_path)
    item = candidates["padmask"]
    kind = MicroBatchKind(item.batching, item.train, False, item.updates)
    whole = {tuple(sorted(update.tolist())) for update in item.updates}
    for places in (0.0, 20.0, 1e9):
        for _ in range(20):
            rows = probe._piece(kind, places)
            (update,) = (update for update in item.updates if set(rows.tolist()) <= set(update.tolist()))
            lengths = item.train.rows.host_lengths
            assert len(set(rows.tolist())) == len(rows) >= 2
            assert lengths[rows].max() == lengths[update].max()
            assert places != 1e9 or tuple(sorted(rows.tolist())) in whole
            assert places != 20.0 or len(rows) * lengths[rows].max() <= max(20, 2 * lengths[rows].max())


def test_parameters_stay_as_they_are(tmp_path: Path) -> None:
    probe, candidates = made(tmp_path, "optimizer=adamw")
    before = [parameter.detach().clone() for parameter in probe.model.parameters()]
    probe.predict([candidates["packed"]], 0.1)
    for parameter, earlier in zip(probe.model.parameters(), before, strict=True):
        assert torch.equal(parameter, earlier)


def test_the_fastest_that_fits_is_chosen() -> None:
    figures = {"a": (100.0, 3000), "b": (90.0, 2000), "c": (50.0, 1000)}
    costs: list[CandidateRecord] = [
        {"name": name, "batch_size": 8, "predicted_real_tokens_per_s": rate, "predicted_peak_bytes": peak_bytes}
        for name, (rate, peak_bytes) in figures.items()
    ]
    assert fastest(costs, None)["name"] == "a"
    assert fastest(costs, 2999)["name"] == "b"
    with pytest.raises(HydromelError, match=r"the least that any candidate needs is 1000 \(c, batch_size=8\)"):
        fastest(costs, 999)
