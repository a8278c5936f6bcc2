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
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import create_evaluation_callback, create_train_batches, train_while_improving
from spacy.util import registry, resolve_dot_names
from thinc.api import fix_random_seed

SPLITS = ("train", "valid", "test")
SCORES = {"ner": "ents_f", "tagger": "tag_acc"}


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


def pipeline(folder, pipe, seed):
    """Return an untrained pipeline for the files of the folder."""
    config = init_config(lang="en", pipeline=[pipe], optimize="efficiency", gpu=False)
    config["paths"].update({"train": str(folder / "train.spacy"), "dev": str(folder / "valid.spacy")})
    config["training"]["seed"] = config["system"]["seed"] = seed
    if (folder / "vectors.txt").exists():
        with_vectors = spacy.blank("en")
        convert_vectors(with_vectors, folder / "vectors.txt", truncate=0, prune=-1)
        with_vectors.to_disk(folder / "vectors")
        config["paths"]["vectors"] = config["initialize"]["vectors"] = str(folder / "vectors")
        config["components"]["tok2vec"]["model"]["embed"]["include_static_vectors"] = True
    return init_nlp(config)


def train(nlp, pipe, seconds, valid):
    """Train for some seconds, with the parameters that are best on valid in the end; return the figures."""
    config = nlp.config.interpolate()
    settings = registry.resolve(config["training"], schema=ConfigSchemaTraining)
    train_corpus, dev_corpus = resolve_dot_names(config, [settings["train_corpus"], settings["dev_corpus"]])
    scored, evaluation = create_evaluation_callback(nlp, dev_corpus, settings["score_weights"]), 0.0

    def evaluate():
        nonlocal evaluation
        begin = time.process_time()
        weighted, scores = scored()
        if pipe == "textcat":
            weighted = accuracy(nlp, valid)
        evaluation += time.process_time() - begin
        return weighted, scores

    steps = train_while_improving(
        nlp,
        settings["optimizer"],
        create_train_batches(nlp, train_corpus, settings["batcher"], max_epochs=0),
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
    begin, best, kept = time.process_time(), -1.0, None
    for _, info, is_best in steps:  # the first step evaluates too
        if is_best is not None and info["score"] > best:
            best = info["score"]
            with nlp.use_params(settings["optimizer"].averages):
                kept = nlp.to_bytes()
        if time.process_time() - begin > seconds:
            break
    taken = time.process_time() - begin
    rate = info["words"] / (taken - evaluation)
    with nlp.use_params(settings["optimizer"].averages):
        if (last := evaluate()[0]) > best:
            best, kept = last, nlp.to_bytes()
    nlp.from_bytes(kept)
    steps_and_epochs = {"steps": info["step"], "epochs": info["epoch"] + 1}
    return {"valid": 100 * best, **steps_and_epochs, "seconds": taken, "words_per_s": rate}


def main(folder, pipe, seconds, seed):
    random.seed(seed)
    fix_random_seed(seed)
    vocab = spacy.blank("en").vocab
    rows = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    labels = sorted({json.loads(line)["gold"] for line in rows}) if pipe == "textcat" else []
    made = {split: docs(folder / f"{split}.jsonl", pipe, vocab, labels) for split in SPLITS}
    for split in SPLITS:
        DocBin(docs=made[split], store_user_data=True).to_disk(folder / f"{split}.spacy")
    nlp = pipeline(folder, pipe, seed)
    found = train(nlp, pipe, seconds, made["valid"])
    begin = time.process_time()
    if pipe == "textcat":
        test = accuracy(nlp, made["test"])
    else:
        blank = [Doc(nlp.vocab, words=[token.text for token in doc]) for doc in made["test"]]
        examples = [Example(*pair) for pair in zip(blank, made["test"], strict=True)]
        test = nlp.evaluate(examples)[SCORES[pipe]]
    rate = sum(map(len, made["test"])) / (time.process_time() - begin)
    print(json.dumps({"test": 100 * test, **found, "prediction_words_per_s": rate, "spacy": spacy.__version__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
