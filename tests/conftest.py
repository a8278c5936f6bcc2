"""What all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from runner.tracking import mlflow_store
from tests.helpers.published import DATA

# A shell that starts the tests in the background lets them, and all that they start, ignore SIGINT: heed it again.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault of a test
hypothesis.settings.load_profile("no deadline")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)  # otherwise in the drawn order
    without = pytest.mark.skip(reason="HYDROMEL_DATA names no folder of published data")
    for item in items:
        if item.get_closest_marker("data") and not DATA:
            item.add_marker(without)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache, which all workers share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDROMEL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's state folder, with the key of this installation."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A headless browser that keeps what pages log and fetch."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store of MLflow: making its schema takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("template")
    with warnings.catch_warnings(action="ignore"):  # of mlflow, about its own dependencies
        mlflow_store.connect(f"sqlite:///{folder}/mlflow.db", "template", None, 10.0)
    with closing(sqlite3.connect(folder / "mlflow.db")) as store, closing(sqlite3.connect(folder / "copy.db")) as copy:
        store.backup(copy)
    return folder / "copy.db"
