"""Which strategies made the same updates: equal digests saw the same rows in every update. Said in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from reporting.runs.selection import KNOWN_WRONG


@dataclass(frozen=True)
class Made:
    """What one strategy did, by seed: the number of updates and the digest of their rows; and its quality on test."""

    updates: Mapping[int, tuple[int, str]]
    quality: Mapping[int, float]
    dropout: bool


def sentences(strategies: Mapping[str, Made], split: str = "test") -> list[str]:
    """What may be concluded from the quality of these strategies, given whose updates were the same."""
    right = {name: made for name, made in strategies.items() if not is_known_wrong(name)}
    classes = [names for names in same_updates(right) if len(names) > 1]
    pairs = {pair: _shared(right[pair[0]], right[pair[1]]) for pair in combinations(right, 2)}
    partly = [
        pair for pair, (same, _) in pairs.items() if same and not any(set(pair) <= set(names) for names in classes)
    ]
    told = {name for names in (*classes, *partly) for name in names}
    paired = {name for pair, seeds in pairs.items() if any(seeds) for name in pair}
    other = [name for name in right if name in paired - told]
    alone = [name for name in right if name not in paired and len(right) > 1]

    said = [_equal(names, right, split) for names in classes] + [_partly(*pair, *pairs[pair]) for pair in partly]
    if other:
        said.append(f"{_listed(other)} {'each ' if other[1:] else ''}made other updates: compare quality over seeds.")
    if alone:
        said.append(f"{_listed(alone)}: no seed in common with another strategy, so nothing says if updates agree.")
    if len(right) < len(strategies):
        said.append(
            f"{KNOWN_WRONG} is known to be wrong: it ignores the mask, so an example's answer depends on the padding "
            "that its neighbours bring. Its figures are no reference, whichever rows its updates saw."
        )
    return said


def is_known_wrong(name: str) -> bool:
    """With whatever options it was run."""
    return name.partition(" ")[0] == KNOWN_WRONG


def same_updates(strategies: Mapping[str, Made]) -> list[list[str]]:
    """The strategies in classes, in their order: each shares seeds, and all of those seeds' updates, with its class."""
    classes: list[list[str]] = []
    for name, made in strategies.items():
        for members in classes:
            pairs = [_shared(strategies[member], made) for member in members]
            if all(same and not other for same, other in pairs):
                members.append(name)
                break
        else:
            classes.append([name])
    return classes


def _shared(a: Made, b: Made) -> tuple[list[int], list[int]]:
    """The seeds that both have: for the first of them both made the same updates, for the second they did not."""
    seeds = sorted(a.updates.keys() & b.updates.keys())
    same = [seed for seed in seeds if a.updates[seed] == b.updates[seed]]
    return same, [seed for seed in seeds if seed not in same]


def _equal(names: list[str], strategies: Mapping[str, Made], split: str) -> str:
    members = [strategies[name] for name in names]
    counts = sorted({count for made in members for count, _ in made.updates.values()})
    count = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    masks = " and by dropout masks" if any(made.dropout for made in members) else ""
    said = (
        f"{_listed(names)} made the same {count} updates (the same rows in each{_seeds(members)}), "
        f"so their quality may differ by rounding{masks} only"
    )
    gaps = [
        max(qualities) - min(qualities)
        for seed in sorted({seed for made in members for seed in made.quality})
        if len(qualities := [made.quality[seed] for made in members if seed in made.quality]) > 1
    ]
    if not gaps:
        return f"{said}."
    by = f"differ by {max(gaps):.3g} at most" if any(gaps) else "do not differ"
    return f"{said}; on {split} they {by}."


def _seeds(members: list[Made]) -> str:
    seeds = {seed for made in members for seed in made.updates}
    return f", for each of {len(seeds)} seeds" if len(seeds) > 1 else ""


def _partly(a: str, b: str, same: list[int], other: list[int]) -> str:
    said = f"{a} and {b} made the same updates for {_named(same)}"
    if not other:
        return f"{said}."
    return f"{said}, but not for {_named(other)}: compare quality over seeds, and find out why they parted."


def _named(seeds: list[int]) -> str:
    return f"seed{'s' if seeds[1:] else ''} {_listed([str(seed) for seed in seeds])}"


def _listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
