"""The HTML page in a real browser: it shows every strategy and figure, fetches nothing, fits a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

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
    assert len(browser.find_elements("css selector", "figure svg[role=img][aria-label]")) == 5
    assert "bucketed is fastest, 13,000 real tokens/s" in browser.find_element("class name", "conclusion").text
    assert browser.find_elements("tag name", "nav") == []  # one group needs no contents
    assert [line["message"] for line in browser.get_log("browser")] == []
    sent = [
        line["message"] for line in browser.get_log("performance") if "Network.requestWillBeSent" in line["message"]
    ]
    assert sent  # the page itself
    assert not [message for message in sent if '"url":"http' in message]

    for width in (360, 390):
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def rows(browser: webdriver.Chrome, table: int) -> list[list[str]]:
    """Return the first line of each cell."""
    script = (
        "return [...document.querySelectorAll('table')[arguments[0]].tBodies[0].rows]"
        ".map(row => [...row.cells].map(cell => cell.innerText.split('\\n')[0]))"
    )
    shown: list[list[str]] = browser.execute_script(script, table)
    return shown


def test_columns_sort_by_keyboard_and_contents_lead_to_groups(
    browser: webdriver.Chrome, sweep: Path, write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures sort by size, dashes last, the simplest model below all; names of runs stay text."""
    evil = """<script>document.title = 'taken'</script> "q" $x$ \u05d0"""
    for seed in (1, 2):
        change = {"provenance.comparison_hash": "two", "dataset": evil}
        write_run(sweep / "night" / f"two-{seed}", "packed", seed, change=change)
    assert compare.main(["night", "--runs", str(sweep), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    browser.get(f"file://{tmp_path / 'out' / 'index.html'}")
    assert browser.title == "Batching strategies compared: night"
    assert evil in browser.find_element("tag name", "nav").text
    links = browser.find_elements("css selector", "nav a")
    assert [link.text for link in links] == [head.text for head in browser.find_elements("tag name", "h2")]
    links[1].send_keys(Keys.ENTER)
    assert browser.execute_script("return document.querySelector(location.hash + ' h2').innerText") == links[1].text

    tables = [find_element.text for find_element in browser.find_elements("tag name", "caption")]
    speed = tables.index("Speed", tables.index("Speed") + 1)  # of the second group
    unsorted = [row[0] for row in rows(browser, speed)]
    head = browser.find_elements("tag name", "table")[speed].find_elements("tag name", "th")[2]
    assert head.text.startswith("vs padmask")
    seen = []
    for _ in range(2):
        head.find_element("tag name", "button").send_keys(Keys.ENTER)
        seen.append((head.get_attribute("aria-sort"), [row[0] for row in rows(browser, speed)]))
    fastest_first = ["unmasked", "bucketed", "packed", "size1", "padmask"]
    assert seen == [("descending", fastest_first), ("ascending", [*fastest_first[3::-1], "padmask"])]
    assert unsorted == ["size1", "bucketed", "padmask", "packed", "unmasked"]
    quality = browser.find_elements("tag name", "table")[speed - 1].find_elements("tag name", "th")
    quality[0].find_element("tag name", "button").send_keys(Keys.ENTER)
    assert [row[0] for row in rows(browser, speed - 1)] == [*sorted(unsorted), "majority"]
    assert [line["message"] for line in browser.get_log("browser")] == []


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
