"""Make the models in this folder and fastText's own results for them: `pip install fasttext`, then run this script.

The words are made up, in several scripts, and trained briefly: the files are small, but written by fastText itself.
Threads and dimensions are multiples of ten: fastText initialises a matrix in ten blocks, one per thread.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import fasttext  # type: ignore[import-not-found]

HERE = Path(__file__).parent
PARTS = ["ka", "lo", "mi", "tu", "ré", "ß", "日", "本", "na", "Ω", "so", "x", "😀", "the"]


def main() -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices(PARTS, k=rng.randint(1, 3))) for _ in range(120)]
    text, labelled = HERE / "text.tmp", HERE / "labelled.tmp"
    rows = [" ".join(rng.choices(words, k=12)) for _ in range(400)]
    text.write_text("\n".join(rows) + "\n", encoding="utf-8")
    labelled.write_text("\n".join(f"__label__{rng.choice('ab')} {row}" for row in rows) + "\n", encoding="utf-8")
    options = {"dim": 10, "bucket": 200, "epoch": 2, "thread": 10, "verbose": 0}
    models = {"skipgram": fasttext.train_unsupervised(str(text), minn=1, maxn=5, **options)}
    for name, how in {"quantised": {"dsub": 4}, "pruned": {"dsub": 2, "qnorm": True, "cutoff": 260}}.items():
        models[name] = fasttext.train_supervised(str(labelled), minn=2, maxn=4, wordNgrams=2, **options)
        models[name].quantize(input=str(labelled), retrain=False, **how)
    asked = [*dict.fromkeys(words[:30]), "unseen", "日本日本Ω", "a", "é", "</s>", "KA", "LOmi", "<ka>"]
    output = {}
    for name, model in models.items():
        model.save_model(str(HERE / f"{name}.bin"))
        model = fasttext.load_model(str(HERE / f"{name}.bin"))
        vectors = {word: [float(f"{number:.7g}") for number in model.get_word_vector(word)] for word in asked}
        output[name] = {
            "words": len(model.words),
            "known": [word for word in asked if word in model],
            "vectors": vectors,
        }
    (HERE / "said.json").write_text(json.dumps(output, ensure_ascii=False) + "\n", encoding="utf-8")
    text.unlink()
    labelled.unlink()


if __name__ == "__main__":
    main()
