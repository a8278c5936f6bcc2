"""A plain port of how conlleval (Tjong Kim Sang and Buchholz 2000; version of 2004) counts, line by line."""

from __future__ import annotations

from collections import Counter
from typing import Any

Tag = tuple[str, str]  # prefix (B, I, O) and type


def split_tag(tag: str) -> Tag:
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def ends_chunk(before: Tag, now: Tag) -> bool:
    return before[0] != "O" and (now[0] != "I" or before[1] != now[1])


def starts_chunk(before: Tag, now: Tag) -> bool:
    return now[0] == "B" or (now[0] == "I" and (before[0] == "O" or before[1] != now[1]))


def conlleval(text: str, delimiter: str) -> dict[str, Any]:
    """Accuracy, and by type (and overall) precision, recall, F1 and found spans, from a file's last two columns."""
    right: Counter[str] = Counter()
    gold_count: Counter[str] = Counter()
    guessed_count: Counter[str] = Counter()
    tokens = right_tokens = 0
    inside = False  # a chunk that is right so far
    gold_before = guessed_before = ("O", "")
    for line in text.split("\n"):
        fields = line.split(delimiter) if line.strip() else ["-X-", "O", "O"]
        gold, guessed = split_tag(fields[-2]), split_tag(fields[-1])
        gold_ends, guessed_ends = ends_chunk(gold_before, gold), ends_chunk(guessed_before, guessed)
        gold_starts, guessed_starts = starts_chunk(gold_before, gold), starts_chunk(guessed_before, guessed)
        if inside:
            if gold_ends and guessed_ends and gold_before[1] == guessed_before[1]:
                inside = False
                right[gold_before[1]] += 1
            elif gold_ends != guessed_ends or gold[1] != guessed[1]:
                inside = False
        inside |= gold_starts and guessed_starts and gold[1] == guessed[1]
        gold_count[gold[1]] += gold_starts
        guessed_count[guessed[1]] += guessed_starts
        if fields[0] != "-X-":
            tokens += 1
            right_tokens += gold == guessed
        gold_before, guessed_before = gold, guessed
    right[gold_before[1]] += inside  # a file that ends within a chunk
    names = sorted(+gold_count | +guessed_count)
    table = {name: scores(right[name], guessed_count[name], gold_count[name]) for name in names}
    overall = scores(sum(right.values()), sum(guessed_count.values()), sum(gold_count.values()))
    return {"accuracy": 100 * right_tokens / max(1, tokens), "per_type": table, **overall}


def scores(right: int, guessed: int, gold: int) -> dict[str, float]:
    precision, recall = 100 * right / max(1, guessed), 100 * right / max(1, gold)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": gold}
