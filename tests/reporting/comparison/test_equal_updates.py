"""The sentences on equal updates, word by word, since readers draw conclusions from them."""

from __future__ import annotations

from reporting.comparison.equal_updates import StrategyUpdates, same_updates, sentences


def made(
    digests: dict[int, str], dropout: bool = False, quality: dict[int, float] | None = None, count: int = 312
) -> StrategyUpdates:
    return StrategyUpdates({seed: (count, digest) for seed, digest in digests.items()}, quality or {}, dropout)


def test_equal_and_other() -> None:
    a, b = {1: "x", 2: "y"}, {1: "p", 2: "q"}
    output = sentences({"size1": made(a), "bucketed": made(b), "padmask": made(a), "packed": made(a)})
    assert output == [
        "size1, padmask and packed made the same 312 updates (the same rows in each, for each of 2 seeds), "
        "so their quality may differ only by rounding.",
        "bucketed made other updates: compare quality over seeds.",
    ]


def test_dropout_of_any_of_them_is_told_and_the_largest_gap() -> None:
    output = sentences(
        {"padmask": made({1: "x"}, quality={1: 40.0}), "packed": made({1: "x"}, dropout=True, quality={1: 40.25})}
    )
    assert output == [
        "padmask and packed made the same 312 updates (the same rows in each), so their quality may differ only by "
        "rounding and by dropout masks; on test they differ by 0.25 at most."
    ]


def test_gap_is_taken_within_a_seed() -> None:
    quality = {1: 40.0, 2: 90.0}
    (message,) = sentences(
        {"padmask": made({1: "x", 2: "y"}, quality=quality), "packed": made({1: "x", 2: "y"}, quality=quality)}
    )
    assert message.endswith("; on test they do not differ.")


def test_without_a_test_quality_is_of_valid() -> None:
    a, b = (made({1: "x"}, quality={1: value}) for value in (1.0, 3.0))
    assert sentences({"padmask": a, "packed": b}, "valid")[0].endswith("; on valid they differ by 2 at most.")


def test_all_different() -> None:
    output = sentences({"bucketed": made({1: "a"}), "padmask": made({1: "b"}), "token_budget": made({1: "c"})})
    assert output == ["bucketed, padmask and token_budget each made other updates: compare quality over seeds."]


def test_equal_rows_but_fewer_updates_are_not_the_same() -> None:
    output = sentences({"padmask": made({1: "x"}), "packed": made({1: "x"}, count=311)})
    assert output == ["padmask and packed each made other updates: compare quality over seeds."]


def test_counts_that_depend_on_the_seed() -> None:
    stopped_early = StrategyUpdates({1: (300, "x"), 2: (1312, "y")}, {}, False)
    (message,) = sentences({"padmask": stopped_early, "packed": stopped_early})
    assert "made the same 300 to 1,312 updates" in message


def test_some_seeds_agree() -> None:
    output = sentences({"padmask": made({1: "x", 2: "y", 3: "z"}), "packed": made({1: "x", 2: "y", 3: "other"})})
    assert output == [
        "padmask and packed made the same updates for seeds 1 and 2, but not for seed 3: compare quality over seeds, "
        "and find out why these differ."
    ]


def test_only_common_seeds_count() -> None:
    (message,) = sentences({"padmask": made({1: "x", 2: "y"}), "packed": made({2: "y", 3: "z"})})
    assert message.startswith("padmask and packed made the same 312 updates")


def test_no_common_seed() -> None:
    output = sentences({"padmask": made({1: "x"}), "packed": made({2: "x"})})
    assert output == [
        "padmask and packed: no seed in common with another strategy, so it is unknown whether updates agree."
    ]


def test_unmasked_is_never_called_the_same() -> None:
    output = sentences({"bucketed": made({1: "x"}), "unmasked": made({1: "x"})})
    assert not any("the same" in item for item in output)
    assert output[-1].startswith("unmasked is known to be wrong")


def test_one_strategy_has_nothing_to_be_compared_with() -> None:
    assert sentences({"padmask": made({1: "x"})}) == []


def test_a_chain_of_shared_seeds_is_not_a_class() -> None:
    """a and c share no seed, so it is unknown whether they made the same updates, though b agrees with both."""
    chain = {"a": made({1: "x"}), "b": made({1: "x", 2: "y"}), "c": made({2: "y"})}
    assert same_updates(chain) == [["a", "b"], ["c"]]
    assert sentences(chain)[1:] == ["b and c made the same updates for seed 2."]
