"""Bounded reading: no small file fills the memory or the stack, or takes for ever, and honest files are read."""

from __future__ import annotations

import gzip
import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from runner.common import bounded
from runner.common.bounded import (
    check_contents,
    check_uncompressed,
    expand,
    parse_yaml,
    read_bytes,
    read_lines,
    read_yaml,
    to_yaml,
)
from runner.common.errors import HydromelError
from tests.helpers.composed import config

ALIASES = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (ALIASES, "FILE:2: the alias *a; a saved file has no aliases"),
        ("a: " + "[" * 100_000, "FILE:1: nested more than 100 levels deep, the most allowed"),
        ("".join(" " * level + "a:\n" for level in range(1200)), "FILE:101: nested more than 100 levels deep"),
        ("a: " + "1" * 500_000, "FILE: damaged, not YAML (a number of 500,000 digits; at most 1,000 are allowed)"),
        ("a: 1" + ":1" * 400_000, "FILE: damaged, not YAML (a number of 800,001 digits"),
        ("a: !!set {b, c}", "FILE:1: the tag tag:yaml.org,2002:set; a saved file has no tags"),
        ("a: !!python/object/apply:os.system [exit]", "FILE:1: the tag tag:yaml.org,2002:python/object/apply"),
        ("a: {1: 2}", "FILE: damaged, the key 1 is not a string"),
        ("a: {null: 2}", "FILE: damaged, the key None is not a string"),
        ("a: [", "FILE: damaged, not YAML"),
        (b"a: \xff", "FILE: damaged, not YAML"),
    ],
    ids=range(11),
)
def test_yaml_that_hurts_is_refused_in_one_line(text: str | bytes, line: str) -> None:
    with pytest.raises(HydromelError) as error:
        parse_yaml(text, "FILE")
    assert str(error.value).startswith(line)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_yaml_is_read_as_it_was_written() -> None:
    shared = {"x": [1, 2.5, 1e-20, True, None]}
    plain = {
        "one": shared,
        "two": shared,
        "date": "2001-01-01",
        "text": "1e3",
        "of": "${oc.env:HOME}",
        "deep": [[[[]]]],
    }
    text = to_yaml(plain)
    assert "&" not in text
    assert parse_yaml(text, "FILE") == plain == yaml.safe_load(text)
    assert parse_yaml("a: 2001-99-99", "FILE") == {"a": "2001-99-99"}, "a date is a string"


def test_nothing_is_written_that_would_not_be_read() -> None:
    with pytest.raises(HydromelError, match="the config has more than 1,048,576 bytes as YAML"):
        to_yaml({"label": "x" * 2**20})
    assert len(to_yaml(config())) < bounded.MOST_YAML_BYTES / 100


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"12345")
    assert read_bytes(tmp_path / "good", 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**42)
    for name, reason in {
        "good": "more than 4 bytes, the most that this file may have",
        "sparse": "more than 4 bytes, the most that this file may have",
        "pipe": "not a regular file",
        "zero": "not a regular file",
        ".": "not a regular file",
        "nothing": "cannot be read (No such file or directory)",
    }.items():
        with pytest.raises(HydromelError) as error:
            read_bytes(tmp_path / name, 4)
        assert str(error.value) == f"{tmp_path / name}: {reason}"
    with pytest.raises(HydromelError, match="sparse: more than 1,048,576 bytes"):
        read_yaml(tmp_path / "sparse")


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_LINE_BYTES", 5)
    assert [*read_lines(io.BytesIO(b"1234\n\n12345"), "FILE")] == [b"1234\n", b"\n", b"12345"]
    with pytest.raises(HydromelError, match="FILE: a line of more than 5 bytes, the most allowed"):
        list(read_lines(io.BytesIO(b"1\n123456"), "FILE"))


# --- gzip and zip


def test_a_gzip_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"a a a a a a a a\n" * 100_000)
    assert expand(bomb, "FILE", 10**9), "small files may expand as they like"
    monkeypatch.setattr(bounded, "FREE_EXPANSION_BYTES", 10**6)
    with pytest.raises(HydromelError) as error:
        expand(bomb, "FILE", 10**9)
    assert str(error.value) == (
        f"FILE: expands to more than 100 times its {len(bomb):,} bytes, unlike text; if you trust it, unpack it first"
    )
    members = gzip.compress(b"x" * 400_000) * 5  # each is small
    with pytest.raises(HydromelError, match="FILE: expands to more than 100 times"):
        expand(members, "FILE", 10**9)


def test_text_of_any_size_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the log of a machine, which expands twentyfold."""
    monkeypatch.setattr(bounded, "FREE_EXPANSION_BYTES", 1000)
    rng = random.Random(1)
    text = "".join(
        f'{{"level": "info", "unit": "cron", "seconds": {rng.random():.3f}}}\n' for _ in range(30_000)
    ).encode()
    assert expand(gzip.compress(text), "FILE", 10**9) == text
    with pytest.raises(HydromelError, match="FILE: expands to more than 1,000 bytes, the most allowed; split it"):
        expand(gzip.compress(text), "FILE", 1000)


def test_compressed_arrays_are_refused() -> None:
    arrays = {"a": np.zeros(1000)}
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, allow_pickle=False, **arrays)
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    check_uncompressed(plain, "FILE")
    assert np.load(plain)["a"].shape == (1000,)
    with pytest.raises(HydromelError, match="FILE is damaged: its arrays are compressed"):
        check_uncompressed(packed, "FILE")


# --- folders that are written to


@pytest.mark.parametrize("name", ["console.log", "metrics.jsonl", "run.lock", "plots", "plots/loss.png", "predictions"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine").symlink_to("/")  # no run writes to it
    (folder / "result.json").write_text("{}", encoding="utf-8")
    check_contents(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    if kind == "link":
        (folder / name).symlink_to(tmp_path)
    else:
        os.mkfifo(folder / name)
    with pytest.raises(HydromelError, match=f"{name}: (a link|neither a file nor a folder); a run writes only"):
        check_contents(folder)
