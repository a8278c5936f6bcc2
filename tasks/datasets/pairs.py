"""Pairs of texts in the options of readers: {a: ..., b: ...}."""

from typing import Literal, TypeVar

from runner.common.errors import HydromelError

T = TypeVar("T")
PairOf = dict[Literal["a", "b"], T]  # an option of the first text and of the second; both are needed (`check_pair`)
TOKENS: dict[Literal["a", "b"], str] = {"a": "tokens", "b": "tokens_b"}  # the columns of the texts


def check_pair(value: object, option: str) -> None:
    """Raise a HydromelError if an option is a mapping without both texts."""
    if isinstance(value, dict) and (missing := [text for text in TOKENS if text not in value]):
        raise HydromelError(f"{option}: the text {missing[0]} is missing; give both, as {{a: premise, b: hypothesis}}")
