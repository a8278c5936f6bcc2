"""Properties of characters, against reference implementations by character, and Python's own tokenizer."""

from __future__ import annotations

import inspect
import io
import random
import statistics
import tokenize

import numpy as np
import pytest

from runner.common.errors import HydromelError
from runner.inference.inspection.properties import DEFAULT, PROPERTIES, chosen, table


def column(text: str, name: str) -> list[float]:
    result: list[float] = table(text, [name])[:, 0].tolist()
    return result


def slowly(text: str) -> dict[str, list[float]]:
    """Reference implementation of every property but those of Python, by a loop over the text."""
    result: dict[str, list[float]] = {name: [] for name in DEFAULT}
    quoted, curly, depth, line, word = False, 0, 0, "", 0
    for item in text:
        blank = item == "\n" and not line.strip()
        line = "" if item == "\n" else line + item
        if item == '"':
            quoted = not quoted
        curly += {"“": 1, "”": -1}.get(item, 0)
        if item in "([{":
            depth += 1
        if item in ")]}":
            depth = max(0, depth - 1)
        if blank:
            quoted, curly, depth = False, 0, 0
        word = word + 1 if item.isalnum() else 0
        values = {
            "quotes": quoted or curly > 0,
            "line_position": len(line),
            "newline": item == "\n",
            "blank_line": blank,
            "depth": depth,
            "indentation": len(line) - len(line.lstrip()),
            "word_position": word,
            "space": item.isspace(),
            "capital": item.isupper(),
            "digit": item.isdigit(),
        }
        for name, value in values.items():
            result[name].append(float(value))
    return result


@pytest.mark.parametrize("seed", range(30))
def test_properties_equal_a_loop_over_the_text(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = rng.choice(['ab "\n', "a([)]{} \n", 'Aé1٣ß\t "“”()\n', "x \n"])
    text = "".join(rng.choice(alphabet) for _ in range(rng.choice([1, 2, 7, 200])))
    expected = slowly(text)
    assert set(expected) == set(DEFAULT)
    for name, values in expected.items():
        assert column(text, name) == values, (name, text)


def test_a_text_of_known_properties() -> None:
    text = 'Yes "no" (a)'
    assert column(text, "quotes") == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert column(text, "depth") == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    assert column(text, "word_position") == [1, 2, 3, 0, 0, 1, 2, 0, 0, 0, 1, 0]
    assert column("it's \"", "python_string") == [0, 0, 1, 1, 1, 1]  # unclosed: up to the line's end
    assert column("'\\'' #'\n'", "python_string") == [1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert column("'\\'' #'\n'", "python_comment") == [0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert column("''''a'''#", "python_string") == [0, 0, 1, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("module", [statistics, inspect, tokenize])
def test_python_properties_equal_pythons_tokenizer(module: object) -> None:
    source = inspect.getsource(module)  # type: ignore[arg-type]
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    string, comment, depth = np.zeros((3, len(source)))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        if token.type == tokenize.STRING:
            prefix = len(token.string) - len(token.string.lstrip("rbfuRBFU"))
            quote = 3 if token.string[prefix : prefix + 3] in ('"""', "'''") else 1
            string[begin + prefix + quote - 1 : end - 1] = 1
        if token.type == tokenize.COMMENT:
            comment[begin:end] = 1
        if token.type == tokenize.OP and token.string in "()[]{}":
            depth[begin:] += 1 if token.string in "([{" else -1
    assert string.any()
    assert comment.any()
    assert depth.max() >= 2
    for name, expected in (("string", string), ("comment", comment), ("depth", depth)):
        np.testing.assert_array_equal(column(source, f"python_{name}"), expected)


def test_features_are_chosen_by_name() -> None:
    assert chosen(None) == DEFAULT
    assert chosen("all") == tuple(PROPERTIES)
    assert chosen("depth, quotes,depth") == ("depth", "quotes")
    for wrong in ("quote", "", ",", "depth,quote"):
        with pytest.raises(HydromelError, match="unknown"):
            chosen(wrong)
