"""A tagging set of ambiguous and unknown words, and each word's most frequent tag by a slow count."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from tests.helpers.composed import tag_files


def most_frequent(folder: Path) -> tuple[list[str], list[str]]:
    """By counting: predictions for test, words seen once being one word, and gold tags."""

    def sentences(split: str) -> list[list[tuple[str, str]]]:
        text = (folder / f"{split}.conll").read_text(encoding="utf-8").strip()
        return [[tuple(line.split("\t")) for line in block.splitlines()] for block in text.split("\n\n")]  # type: ignore[misc]

    pairs = [pair for sentence in sentences("train") for pair in sentence]
    seen = Counter(word for word, _ in pairs)
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for word, item in pairs:
        tags[word if seen[word] > 1 else "unk"][item] += 1
    overall = Counter(item for _, item in pairs)
    test = [pair for sentence in sentences("test") for pair in sentence]
    answers = []
    for word, _ in test:
        counts = tags[word if seen[word] > 1 else "unk"]
        answers.append(max(sorted(overall), key=lambda item: (counts[item], overall[item])))
    return answers, [gold for _, gold in test]


def noisy_tag_files(folder: Path) -> list[str]:
    """Words with more than one tag, words seen once, and words that train lacks."""
    overrides = tag_files(folder)
    for split, strange in (("train", "once"), ("test", "never")):
        path = folder / f"{split}.conll"
        extra = "Ann\tB-LOC\nRome\tB-PER\n" * 3 + f"{strange}\tB-LOC\n{strange}2\tB-LOC\n{strange}3\tO\n"
        path.write_text(f"{path.read_text(encoding='utf-8').strip()}\n\n{extra}", encoding="utf-8")
    return overrides
