"""Products by oneDNN are float32's, or there is an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from runner.common.errors import HydromelError
from runner.profiling import matmul


@pytest.fixture(autouse=True)
def _torch_again() -> Iterator[None]:
    yield
    matmul.choose_matmul("torch")


def error_of(left: torch.Tensor, right: torch.Tensor) -> float:
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).norm() / exact.norm())


def test_products_by_onednn_are_as_exact_as_by_torch() -> None:
    try:
        if matmul.choose_matmul("onednn") != "onednn":
            pytest.skip("oneDNN multiplies no float32 matrices on this processor")
    except HydromelError as refused:
        pytest.skip(str(refused))
    assert error_of(torch.randn(300, 700), torch.randn(700, 200)) < 2e-6
    matmul.choose_matmul("torch")
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def test_an_option_that_changes_nothing_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a processor without AVX-512: the products are the same whichever library is asked for."""
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda left, right: (left.double().mm(right.double())).to(left.dtype)
    )
    matmul._warn_of_no_effect.cache_clear()
    assert matmul.choose_matmul("onednn") == matmul.choose_matmul("onednn") == "torch"
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"
    assert [record.levelname for record in caplog.records if "matmul=onednn has no effect" in record.message] == [
        "WARNING"
    ]
    assert matmul.choose_matmul("tf32") == "tf32"


def test_coarser_products_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float64:
            return torch.mm(left, right)
        return torch.mm(left.bfloat16(), right.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    with pytest.raises(HydromelError, match=r"matmul=onednn: this processor's products have a relative error of \d"):
        matmul.choose_matmul("onednn")
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def test_a_gpu_rounds_products_only_where_it_is_asked_to() -> None:
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    for which, precision in (("torch", "ieee"), ("tf32", "tf32"), ("torch", "ieee")):
        matmul.choose_matmul(which)
        assert [kind.fp32_precision for kind in kinds] == [precision] * 3
