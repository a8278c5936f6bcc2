"""The HTML page in a real browser: it shows every strategy and figure, fetches nothing, fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium import webdriver

from reporting import compare

pytestmark = pytest.mark.browser


def test_page(browser: webdriver.Chrome, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["night", "--runs", str(sweep), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    browser.get(f"file://{tmp_path / 'out' / 'index.html'}")
    body = browser.find_element("tag name", "body").text
    for strategy in ("size1", "bucketed", "padmask", "packed", "unmasked"):
        assert strategy in body
    for figure in ("11,440", "11,220–11,660", "known wrong", "42.00", "± 2.48", "25.0", "made the same 312 updates"):
        assert figure in body
    assert len(browser.find_elements("css selector", "figure svg")) == 3
    assert [line["message"] for line in browser.get_log("browser")] == []
    sent = [
        line["message"] for line in browser.get_log("performance") if "Network.requestWillBeSent" in line["message"]
    ]
    assert sent  # the page itself
    assert not [message for message in sent if '"url":"http' in message]

    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_page_follows_the_colour_scheme(
    browser: webdriver.Chrome, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(["night", "--runs", str(sweep), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    browser.get(f"file://{tmp_path / 'out' / 'index.html'}")
    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        seen[scheme] = browser.execute_script(
            "const paper = getComputedStyle(document.body).backgroundColor;"
            "const ink = getComputedStyle(document.querySelector('figure svg text')).fill;"
            "return [paper, ink];"
        )
    assert seen == {
        "light": ["rgb(255, 255, 255)", "rgb(28, 29, 34)"],
        "dark": ["rgb(21, 23, 28)", "rgb(230, 231, 234)"],
    }
