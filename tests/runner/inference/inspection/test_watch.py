"""Sums over passages equal those over the whole text."""

from __future__ import annotations

import numpy as np

from runner.inference.inspection.watch import LayerSums, Moments


def test_correlations_of_passages_equal_those_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    units = rng.normal(size=(1000, 5)).astype(np.float32)
    units[:, 1] += 1000  # a mean large enough for cancellation
    units[:, 2] = 0.3  # constant, but not exact in binary
    others = np.stack([units[:, 0] + 0.5 * rng.normal(size=1000), rng.integers(0, 2, 1000), np.full(1000, 0.1)], axis=1)
    whole = Moments(5, 3)
    for passage in np.split(np.arange(1000), [0, 1, 2, 130, 500, 500, 999]):
        whole.add(units[passage], others[passage])
    actual = whole.correlation()
    for unit in (0, 1, 3, 4):
        for other in (0, 1):
            expected = np.corrcoef(units[:, unit].astype(np.float64), others[:, other])[0, 1]
            np.testing.assert_allclose(actual[unit, other], expected, rtol=0, atol=1e-9)
    assert actual[0, 0] > 0.8
    assert np.isnan(actual[2]).all()
    assert np.isnan(actual[:, 2]).all()


def test_saturation_is_a_share_of_tokens() -> None:
    gates = np.array([[0.05, 0.5], [0.95, 0.5], [0.0, 0.99], [0.09, 0.1]], dtype=np.float32)
    item = LayerSums(("reset", "hidden"), hidden=2, n_properties=1)
    for part in (gates[:1], gates[1:]):
        item.add(np.stack([part, part], axis=1), np.ones((len(part), 1)), keep=0)
    layer = item.layer()
    assert layer.closed["reset"].tolist() == [0.75, 0.0]
    assert layer.open["reset"].tolist() == [0.25, 0.25]
