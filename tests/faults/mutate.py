"""Damage to files and values, drawn by a generator: what a disk, an editor, another version or a stranger may do."""

from __future__ import annotations

import copy
import gzip
import io
import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m"
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = "[" * 100_000
BINARY = bytes(range(256)) * 8

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, -(2**70), 10**30, 10**400),
    *(0.0, -0.5, 1e-320, 1e308, math.inf, -math.inf, math.nan, 0.999),
    *(
        "",
        " ",
        "x",
        "null",
        "nan",
        "1e999",
        "word",
        "last",
        "../../../etc/passwd",
        "/dev/full",
        "a\nb",
        "\x00",
        "\ud800",
    ),
    *(ESCAPE, "Ω" * 300, "x" * 300_000, "${oc.env:HOME}", "${x}", "${", "???", "%s%n{0}", "utf-16", "punycode", "idna"),
    *("os.system", "runner.cli.predict.main", "tasks.tag.Tag", "builtins.eval", "reporting.plots.run.RunPlots"),
    *(
        [],
        {},
        [[]],
        [None],
        [1, "a", None],
        {"": ""},
        {"a": {"b": {"c": []}}},
        {"_target_": "os.system", "command": "true"},
    ),
    *({"_target_": "runner.cli.predict.main", "arguments": ["--plugins", "subprocess"]}, [0] * 2000, {1: 2}, {None: 1}),
)


def value(old: object, rng: Random) -> object:
    """Return another value for `old`: a nasty one, or one that is near."""
    if rng.random() < 0.7:
        return _nasty(rng)
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float) and math.isfinite(old):
        return rng.choice([old + 1, -old, old * 10**6, str(old), [old], float(old), old / 3])
    if isinstance(old, str):
        place = rng.randrange(len(old) + 1)
        return rng.choice(
            [old[:place], old + old, old.upper(), old[:place] + rng.choice("é\t/.\u202e") + old[place:], [old]]
        )
    return rng.choice([[old], {"a": old}, str(old)])


def _nasty(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(NASTY))  # a further change may be within it


def places(plain: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value within nested mappings and lists."""
    children = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def structure(plain: Any, rng: Random) -> str:
    """Change a value, a key or an item within nested mappings and lists, and return what was changed."""
    candidates = list(places(plain))
    if not candidates:
        return "unchanged"
    path = rng.choice(candidates)
    holder = plain
    for key in path[:-1]:
        holder = holder[key]
    kind, key = rng.choice(["value"] * 6 + ["drop", "add", "rename"]), path[-1]
    if kind == "value":
        holder[key] = value(holder[key], rng)
    elif kind == "drop":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), _nasty(rng))
    elif kind == "add":
        holder[rng.choice(["extra", "_target_", "", key + "2" if isinstance(key, str) else 7])] = _nasty(rng)
    else:
        holder[str(key) + "_"] = holder.pop(key)
    return f"{kind} {'.'.join(str(part)[:40] for part in path)[:100]}"


def _flip(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 8, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _hole(content: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice([1, 16, 512]) :]


def _zeros(content: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


def _insert(content: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(content))
    noise = rng.choice(
        [rng.randbytes(16), ESCAPE.encode("latin-1"), b"\xff\xfe", b"\x00", b"\n", b"}", b"Infinity", b"9" * 5000]
    )
    return content[:start] + noise + content[start:]


def _twice(content: bytes, rng: Random) -> bytes:
    return content + content


def _replace(content: bytes, rng: Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return rng.choice(
        [
            *(b"", b"\n", b"{", b"null", b"[]", b"{}", b"0", b'"text"', b"\x00" * 4096, BINARY, DEEP.encode()),
            *((DEEP.replace("[", '{"a":')).encode(), ALIASES.encode(), text.encode("utf-16-le"), text.encode("utf-16")),
            *(
                b"\xef\xbb\xbf" + content,
                gzip.compress(content, mtime=0),
                b"x" * 2_000_000,
                ESCAPE.encode(),
                b"\x80\x04." + content,
            ),
        ]
    )


_BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "hole": _hole,
    "zeros": _zeros,
    "insert": _insert,
    "twice": _twice,
    "replace": _replace,
}


def file(path: Path, rng: Random) -> str:
    """Damage a file in place, and return how."""
    content = path.read_bytes()
    chance = rng.random()
    if chance < 0.06:
        return _no_file(path, rng)
    if chance < 0.6:
        try:
            how, changed = _structured(path.suffix, content, rng)
        except (ValueError, OSError, struct.error, yaml.YAMLError, UnicodeError):  # no such structure, or not writable
            how, changed = "", content
        if changed != content:
            path.write_bytes(changed)
            return how
    how = rng.choice(list(_BYTES)) if content else "replace"
    path.write_bytes(_BYTES[how](content, rng))
    return how


def _no_file(path: Path, rng: Random) -> str:
    """Put something else than a file in its place."""
    path.unlink()
    how = rng.choice(["missing", "folder", "loop", "pipe", "device"])
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    return how


def _structured(suffix: str, content: bytes, rng: Random) -> tuple[str, bytes]:
    if suffix == ".json":
        plain = json.loads(content)
        return structure(plain, rng), json.dumps(plain).encode()
    if suffix == ".yaml":
        plain = yaml.safe_load(content)
        return structure(plain, rng), yaml.safe_dump(plain, sort_keys=False).encode("utf-8", "surrogatepass")
    if suffix == ".jsonl":
        lines = content.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        plain = json.loads(lines[place])
        how = structure(plain, rng)
        lines[place] = json.dumps(plain).encode() + b"\n"
        return f"line {place + 1}: {how}", b"".join(lines)
    if suffix == ".safetensors":
        return _tensors(content, rng)
    if suffix == ".npz":
        return _arrays(content, rng)
    return "", content


def _tensors(content: bytes, rng: Random) -> tuple[str, bytes]:
    """Change the header of a safetensors file: its own fields, or the state in its metadata."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    inner = next((key for key, item in metadata.items() if item.startswith(("{", "["))), None)
    if inner is not None and rng.random() < 0.7:
        state = json.loads(metadata[inner])
        how = f"state: {structure(state, rng)}"
        metadata[inner] = json.dumps(state)
    else:
        how = f"header: {structure(header, rng)}"
    packed = json.dumps(header).encode()
    return how, struct.pack("<Q", len(packed)) + packed + content[8 + size :]


def _arrays(content: bytes, rng: Random) -> tuple[str, bytes]:
    """Change one array of an npz file."""
    arrays = dict(np.load(io.BytesIO(content)))
    name = rng.choice(sorted(arrays))
    old = arrays[name]
    others: dict[str, Any] = {
        "pickled": np.array([{"a": 1}, print], dtype=object),
        "negative": -1 - np.abs(old.astype(np.float64)),
        "text": old.astype(str),
        "bytes": old.astype("S7"),
        "shorter": old[: len(old) // 2] if old.ndim else old,
        "nan": np.full(old.shape, math.nan),
        "deeper": old[None, None],
        "scalar": np.float64(3),
        "large": np.full(old.shape, 2**62),
    }
    how = rng.choice([*others, "gone"])
    arrays |= {name: others[how]} if how != "gone" else {}
    if how == "gone":
        del arrays[name]
    file = io.BytesIO()
    np.savez(file, **arrays)
    return f"{name}: {how}", file.getvalue()
