"""Train a spaCy pipeline from scratch for some seconds; run by `spacy_peer.py` with a Python that has spaCy.

    PYTHON spacy_train.py FOLDER PIPE SECONDS SEED

FOLDER has train.jsonl, valid.jsonl and test.jsonl with lines of `words` and `gold`: tags in IOB2 for `ner`, one tag for
each word for `tagger`, a label for `textcat`; and vectors.txt, if words are to have pretrained vectors. The pipeline is
what `spacy init config --optimize efficiency` writes, trained by spaCy's own loop. The parameters that are best on
valid are tested. Prints one line of JSON.
"""

import json
import random
import sys
import time
from pathlib import Path

import spacy
from spacy.cli.init_config import init_config
from spacy.cli.init_pipeline import convert_vectors
from spacy.schemas import ConfigSchemaTraining
from spacy.tokens import Doc, DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import create_evaluation_callback, create_train_batches, train_while_improving
from spacy.util import registry, resolve_dot_names
from thinc.api import fix_random_seed

SPLITS = ("train", "valid", "test")
SCORES = {"ner": "ents_f", "tagger": "tag_acc", "textcat": None}


def docs(path, pipe, vocab, labels):
    made = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        words, gold = row["words"] or [" "], row["gold"]
        if pipe == "textcat":
            doc = Doc(vocab, words=words)
            doc.cats = {label: float(label == gold) for label in labels}
        else:
            doc = Doc(vocab, words=words, **{"ents" if pipe == "ner" else "tags": gold or ["O"]})
        made.append(doc)
    return made


def accuracy(nlp, gold):
    """Return the share of rows whose most probable label is theirs."""
    found = nlp.pipe([Doc(nlp.vocab, words=[token.text for token in doc]) for doc in gold])
    return sum(
        max(a.cats, key=a.cats.get) == max(b.cats, key=b.cats.get) for a, b in zip(found, gold, strict=True)
    ) / len(gold)


def main(folder, pipe, seconds, seed):
    random.seed(seed)
    fix_random_seed(seed)
    blank = spacy.blank("en")
    rows = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    labels = sorted({json.loads(line)["gold"] for line in rows}) if pipe == "textcat" else []
    made = {split: docs(folder / f"{split}.jsonl", pipe, blank.vocab, labels) for split in SPLITS}
    for split in SPLITS:
        DocBin(docs=made[split], store_user_data=True).to_disk(folder / f"{split}.spacy")
    config = init_config(lang="en", pipeline=[pipe], optimize="efficiency", gpu=False)
    config["paths"].update({"train": str(folder / "train.spacy"), "dev": str(folder / "valid.spacy")})
    config["training"].update({"seed": seed, "max_steps": 0, "max_epochs": 0, "patience": 0})
    config["system"]["seed"] = seed
    if (folder / "vectors.txt").exists():
        with_vectors = spacy.blank("en")
        convert_vectors(with_vectors, folder / "vectors.txt", truncate=0, prune=-1)
        with_vectors.to_disk(folder / "vectors")
        config["paths"]["vectors"] = config["initialize"]["vectors"] = str(folder / "vectors")
        config["components"]["tok2vec"]["model"]["embed"]["include_static_vectors"] = True
    nlp = init_nlp(config)
    settings = registry.resolve(nlp.config.interpolate()["training"], schema=ConfigSchemaTraining)
    train_corpus, dev_corpus = resolve_dot_names(
        nlp.config.interpolate(), [settings["train_corpus"], settings["dev_corpus"]]
    )
    evaluation = [0.0]
    scored = create_evaluation_callback(nlp, dev_corpus, settings["score_weights"])

    def evaluate():
        begin = time.process_time()
        weighted, scores = scored()
        if pipe == "textcat":
            weighted = accuracy(nlp, made["valid"])
        evaluation[0] += time.process_time() - begin
        return weighted, scores

    steps = train_while_improving(
        nlp,
        settings["optimizer"],
        create_train_batches(nlp, train_corpus, settings["batcher"], settings["max_epochs"]),
        evaluate,
        dropout=settings["dropout"],
        accumulate_gradient=settings["accumulate_gradient"],
        patience=0,
        max_steps=0,
        eval_frequency=settings["eval_frequency"],
        exclude=[],
        annotating_components=[],
        before_update=None,
    )
    begin, words, best, kept = time.process_time(), 0, -1.0, None
    for _, info, is_best in steps:
        words = info["words"]
        if is_best is not None and info["score"] > best:
            best = info["score"]
            with nlp.use_params(settings["optimizer"].averages):
                kept = nlp.to_bytes()
        if time.process_time() - begin > seconds:
            break
    taken = time.process_time() - begin
    score, _ = evaluate()
    if kept is not None and best >= score:
        nlp.from_bytes(kept)
    begin = time.process_time()
    if pipe == "textcat":
        test = accuracy(nlp, made["test"])
    else:
        examples = [
            spacy.training.Example(Doc(nlp.vocab, words=[token.text for token in doc]), doc) for doc in made["test"]
        ]
        test = nlp.evaluate(examples)[SCORES[pipe]]
    found = {
        "test": 100 * test,
        "valid": 100 * max(best, score),
        "steps": info["step"],
        "epochs": info["epoch"] + 1,
        "seconds": taken,
        "words_per_s": words / (taken - evaluation[0]),
        "prediction_words_per_s": sum(map(len, made["test"])) / (time.process_time() - begin),
        "spacy": spacy.__version__,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
