"""Sentences on which strategies made the same updates: runs with equal digests saw the same rows in every update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from reporting.runs.selection import KNOWN_WRONG


@dataclass(frozen=True)
class StrategyUpdates:
    """The updates of one strategy by seed (their count, and a digest of their rows), and its quality on test."""

    updates: Mapping[int, tuple[int, str]]
    quality: Mapping[int, float]
    dropout: bool


def sentences(strategies: Mapping[str, StrategyUpdates], split: str = "test") -> list[str]:
    """Return sentences on how the quality of these strategies may be compared, given which made the same updates."""
    sound = {name: strategy for name, strategy in strategies.items() if not is_known_wrong(name)}
    classes = [names for names in same_updates(sound) if len(names) > 1]
    pairs = {pair: _shared(sound[pair[0]], sound[pair[1]]) for pair in combinations(sound, 2)}
    in_classes = {pair for names in classes for pair in combinations(names, 2)}
    partly = [pair for pair, (same, _) in pairs.items() if same and pair not in in_classes]
    mentioned = {name for names in (*classes, *partly) for name in names}
    paired = {name for pair, seeds in pairs.items() if any(seeds) for name in pair}
    different = [name for name in sound if name in paired - mentioned]
    unpaired = [name for name in sound if name not in paired and len(sound) > 1]
    lines = [_equal(names, sound, split) for names in classes] + [_partly(*pair, *pairs[pair]) for pair in partly]
    if different:
        each = "each " if different[1:] else ""
        lines.append(f"{listed(different)} {each}made other updates: compare quality over seeds.")
    if unpaired:
        lines.append(
            f"{listed(unpaired)}: no seed in common with another strategy, so it is unknown whether updates agree."
        )
    if len(sound) < len(strategies):
        lines.append(
            f"{KNOWN_WRONG} is known to be wrong: it ignores the mask, so the prediction for an example depends on the "
            "padding of its batch. Do not use its figures as a reference, whichever rows its updates saw."
        )
    return lines


def is_known_wrong(name: str) -> bool:
    """Return True if the strategy is the known-wrong one, with any options."""
    return name.partition(" ")[0] == KNOWN_WRONG


def same_updates(strategies: Mapping[str, StrategyUpdates]) -> list[list[str]]:
    """Return the strategies in classes, in their order: members share seeds, and made equal updates in all of these."""
    classes: list[list[str]] = []
    for name, strategy in strategies.items():
        # Having equal updates is not transitive, as pairs may share different seeds: compare with every member.
        for members in classes:
            pairs = [_shared(strategies[member], strategy) for member in members]
            if all(same and not other for same, other in pairs):
                members.append(name)
                break
        else:
            classes.append([name])
    return classes


def _shared(a: StrategyUpdates, b: StrategyUpdates) -> tuple[list[int], list[int]]:
    """Return the seeds that both have, in two lists: those with the same updates, and those with other updates."""
    seeds = sorted(a.updates.keys() & b.updates.keys())
    same = [seed for seed in seeds if a.updates[seed] == b.updates[seed]]
    return same, [seed for seed in seeds if seed not in same]


def _equal(names: list[str], strategies: Mapping[str, StrategyUpdates], split: str) -> str:
    members = [strategies[name] for name in names]
    counts = sorted({count for strategy in members for count, _ in strategy.updates.values()})
    count = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    seeds = {seed for strategy in members for seed in strategy.updates}
    over_seeds = f", for each of {len(seeds)} seeds" if len(seeds) > 1 else ""
    masks = " and by dropout masks" if any(strategy.dropout for strategy in members) else ""
    sentence = (
        f"{listed(names)} made the same {count} updates (the same rows in each{over_seeds}), "
        f"so their quality may differ only by rounding{masks}"
    )
    gaps = [
        max(qualities) - min(qualities)
        for seed in {seed for strategy in members for seed in strategy.quality}
        if len(qualities := [strategy.quality[seed] for strategy in members if seed in strategy.quality]) > 1
    ]
    if not gaps:
        return f"{sentence}."
    by = f"differ by {max(gaps):.3g} at most" if any(gaps) else "do not differ"
    return f"{sentence}; on {split} they {by}."


def _partly(a: str, b: str, same: list[int], other: list[int]) -> str:
    sentence = f"{a} and {b} made the same updates for {_seed_list(same)}"
    if not other:
        return f"{sentence}."
    return f"{sentence}, but not for {_seed_list(other)}: compare quality over seeds, and find out why these differ."


def _seed_list(seeds: list[int]) -> str:
    return f"seed{'s' if seeds[1:] else ''} {listed([str(seed) for seed in seeds])}"


def listed(names: list[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
