"""Training and evaluation on a pretended device: no waits for it, no tensors elsewhere, and the results of the CPU.

Every case makes three updates in a segment and evaluates, on the CPU and on the device of `pretended`, which takes the
branches of a GPU: the same losses and figures, and no waits but where each of the two is read at its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from tests.helpers import pretended, pretended_runs
from tests.helpers.composed import label_files, tag_files

LOSSES = "runner/training/loop.py:_read"
METRICS = {
    "runner/components/measures.py:MeanLoss.compute",
    "tasks/metrics/metrics.py:joined",
    "tasks/metrics/metrics.py:PerplexityMetric.compute",
    "tasks/metrics/metrics.py:SpanMetric.compute",
    "tasks/metrics/label_sets.py:LabelSetMetric.compute",
    "tasks/metrics/numbers.py:NumberMetric.compute",
    "tasks/heads/label_sets.py:ThresholdChooser.choose",
}
CHECKS = {f"runner/training/bookkeeping.py:check_{item}" for item in ("parameters", "scores")}
READ = {LOSSES, *CHECKS, *METRICS}  # where a segment of training and an evaluation are read
pytestmark = pytest.mark.skipif(pretended.lacking() is not None, reason=str(pretended.lacking()))

SMALL = {
    "none": "",
    "conv": "encoder.filters=4 encoder.layers=2",
    "rnn": "encoder.hidden=4",
    "gru": "encoder.hidden=4",
    "bgru": "encoder.hidden=4 encoder.layers=2",
    "lstm": "encoder.hidden=4",
    "blstm": "encoder.hidden=4",
    "bow": "encoder.hidden=[5]",
    "transformer": "encoder.size=8 encoder.heads=2 encoder.feedforward=8",
}
BATCHING = {
    "size1": "",
    "same_length": "",
    "bucketed": "batching.plan.buckets=3",
    "padmask": "batching.width_multiple=8",
    "packed": "",
    "timestep": "",
    "unmasked": "batching.plan.buckets=3",
    "token_budget": "",
}
POOLINGS = ("mean", "max", "min", "sum", "sqrt", "unit_sum", "last", "first", "attention")
OPTIMIZERS = ("adadelta", "adam", "adamw", "asgd", "nt_asgd", "rmsprop", "sgd")
VECTORS = "embedding.path=vectors.txt"
CHARS = "embedding.parts.chars.filters=4"
DROPPED = "encoder.dropout=0.1 encoder.locked_dropout=0.1"

# what rows are dropped is drawn, by other generators than a CPU's: of these the numbers are not compared
DRAWN = {
    "drop in rnn": f"tag encoder=blstm {DROPPED} encoder.weight_drop=0.2 embedding.dropout=0.1 task.dropout=0.1",
    "drop in conv": f"tag encoder=conv {DROPPED}",
    "drop in transformer": "classify encoder=transformer encoder.dropout=0.1",
    "drop words": "tag embedding.type_dropout=0.2 embedding.unk_rate=0.2",
    "drop in head": "lines task.dropout=0.1 task.locked_dropout=0.1",
    "penalties": "lines task.dropout=0.1 task.activation_penalty=2.0 task.change_penalty=1.0",
    "bf16 scores": "lines task.precision=bfloat16 dtype=float32",
}


def _exact() -> Iterator[tuple[str, str]]:
    """Name -> task, and overrides."""
    for encoder, small in SMALL.items():
        for layout in ("packed", "padmask"):
            task = "classify" if encoder == "bow" else "tag"
            yield f"{encoder} {layout}", f"{task} encoder={encoder} {small} batching={layout}"
    for batching, options in BATCHING.items():
        task = "classify" if batching == "unmasked" else "tag"
        yield batching, f"{task} encoder=bgru encoder.hidden=4 batching={batching} {options}"
    yield "token_budget packed", "tag batching=token_budget batching.layout=packed"
    for pooling in POOLINGS:
        for layout in ("packed", "padmask"):
            yield f"{pooling} {layout}", f"classify encoder=conv task.pooling={pooling} batching={layout}"
    for optimizer in OPTIMIZERS:
        yield optimizer, f"tag optimizer={optimizer} batching=packed"


EXACT = dict(_exact()) | {
    "crf": "tag task.head=crf batching=packed",
    "crf constrained": "tag task.head=crf task.constraints=both encoder=blstm",
    "softmax constrained": "tag task.constraints=decode task.label_smoothing=0.1",
    "weights": "tag task.label_weights=balanced task.train_scheme=IOBES",
    "hinge": "classify task.head=hinge task.label_weights=balanced",
    "hidden": "classify encoder=bow task.hidden=[5] task.label_smoothing=0.1",
    "ngrams": "classify embedding=ngrams embedding.size=null encoder=none task.pooling=sum task.scores=given",
    "vectors": f"tag embedding=vectors {VECTORS} features.words.extend=true batching=packed",
    "frozen vectors": f"tag embedding=vectors {VECTORS} embedding.rate=0.0",
    "char_conv": "tag embedding=word_char encoder=blstm " + CHARS,
    "char_conv packed": "tag embedding=word_char batching=packed embedding.parts.chars.highway=1 " + CHARS,
    "char_conv unmasked": "tag embedding=word_char batching=unmasked " + CHARS,
    "char_rnn": "classify embedding=char_rnn embedding.hidden=4",
    "char_rnn timestep": "tag embedding=char_rnn embedding.hidden=4 batching=timestep",
    "three parts": "tag embedding=word_char_vectors embedding.parts.vectors.path=vectors.txt batching=packed " + CHARS,
    "label sets": "labels encoder=conv encoder.filters=4 batching=packed",
    "label sets padmask": "labels encoder=gru encoder.hidden=4 task.threshold=per_label",
    "numbers": "value encoder=conv encoder.filters=4 batching=packed",
    "numbers padmask": "value encoder=bow task.loss=huber",
    "apart": "label task.pairs=apart encoder=conv encoder.filters=4 batching=packed",
    "apart padmask": "label task.pairs=apart encoder=gru encoder.hidden=4",
    "joined": "label task.pairs=joined encoder=conv encoder.filters=4 batching=packed",
    "ignored": "tag task.ignore=[O] task.span_scheme=null dataset.span_scheme=null batching=packed",
    "ignored crf": "tag task.ignore=[O] task.span_scheme=null dataset.span_scheme=null task.head=crf",
    "rotary": "classify encoder=transformer encoder.positions=rotary batching=packed",
    "learned positions": "tag encoder=transformer encoder.positions=learned encoder.norm=batch",
    "additive": "tag encoder=transformer encoder.score=additive batching=packed",
    "joints": "tag encoder=blstm encoder.shortcut=highway encoder.layer_norm=true encoder.layers=2",
    "lines": "lines encoder=gru batching=packed",
    "lines of transformer": "lines encoder=transformer encoder.memory=4",
    "lines of conv": "lines encoder=conv",
    "tied": "lines task.tie_weights=true embedding.size=8 encoder.hidden=8 task.chunk_scores=40",
    "pieces": "lines features=bpe",
    "stream": "stream",
    "stream padded": "stream batching.layout=padded encoder=gru",
    "stream of transformer": "stream encoder=transformer encoder.memory=4",
    "stream of conv": "stream encoder=conv encoder.layers=2",
    "windows that vary": "stream batching.half_rate=0.5 batching.spread=2.0 optimizer=nt_asgd",
}


@pytest.fixture(scope="module")
def there() -> Iterator[ProcessPoolExecutor]:
    """A process of which the device is known to torch before any gradient is asked for."""
    with ProcessPoolExecutor(1, get_context("spawn"), pretended.device) as pool:
        yield pool


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Overrides that read small data sets, by task."""
    folder = tmp_path_factory.mktemp("data")
    results = {"tag": tag_files(folder, rows=24), "classify": label_files(folder, rows=24)}
    words = ["the", "saw", "Ann", "Rome", "good", "bad", "."]
    vectors = [f"{word} {place} 0.5 {-place}\n" for place, word in enumerate(words)]
    (folder / "vectors.txt").write_text("".join(vectors), encoding="utf-8")
    for split in ("train", "valid", "test"):
        text = "\n".join("the cat sat on the mat . " * (1 + number % 4) for number in range(20))
        (folder / f"{split}.txt").with_stem(f"{split}_text").write_text(text + "\n", encoding="utf-8")
    for split in ("train", "valid", "test"):
        rows = [
            {
                "a": "a b c"[: 1 + 2 * (n % 3)],
                "b": "b c",
                "labels": ["x", "y"][: n % 3],
                "label": "xy"[n % 2],
                "value": n / 2,
            }
            for n in range(20)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    objects = ["dataset=jsonl", f"data_dir={folder}"]
    objects += [f"dataset.{split}={split}.jsonl" for split in ("train", "valid", "test")]
    one, both = ["dataset.text_field=a"], ["dataset.text_columns={a: a, b: b}"]
    results["labels"] = ["task=classify", "task.labels=many", *objects, *one, "dataset.label_field=labels"]
    results["value"] = ["task=regress", *objects, *one, "dataset.label_field=value"]
    results["label"] = ["task=classify", *objects, *both, "dataset.label_field=label"]
    text = ["task=lm", "dataset=text", f"data_dir={folder}", "encoder=lstm"]
    text += [f"dataset.{split}={split}_text.txt" for split in ("train", "valid", "test")]
    results["lines"] = text
    results["stream"] = [*text, "task.unit=stream", "batching=stream", "batching.window=5"]
    results["stream"] += ["batching.evaluation_streams=3"]
    return {task: ["dtype=float64", "batching.batch_size=6", *some] for task, some in results.items()}


@pytest.mark.parametrize("case", EXACT)
def test_a_device_is_not_waited_for_and_says_the_same(
    there: ProcessPoolExecutor, data: dict[str, list[str]], case: str
) -> None:
    task, *options = EXACT[case].split()
    expected, seen = there.submit(pretended_runs.on_both, [*data[task], *options]).result()
    check(seen)
    assert seen.losses == pytest.approx(expected.losses, rel=1e-9)
    assert figures(seen.metrics) == pytest.approx(figures(expected.metrics), rel=1e-9)


@pytest.mark.parametrize("case", DRAWN)
@pytest.mark.parametrize("layout", ["packed", "padmask"])
def test_a_device_that_draws_is_not_waited_for(
    there: ProcessPoolExecutor, data: dict[str, list[str]], case: str, layout: str
) -> None:
    task, *options = DRAWN[case].split()
    seen = there.submit(pretended_runs.on_device, [*data[task], *options, f"batching={layout}"]).result()
    check(seen)


@pytest.mark.parametrize("work", ["tag batching=packed embedding=char_conv", "classify encoder=blstm", "stream"])
def test_a_whole_run_says_the_same(there: ProcessPoolExecutor, data: dict[str, list[str]], work: str) -> None:
    task, *options = work.split()
    more = ["train.epochs=2", "train.max_updates=5", "train.checkpoint_every=2", "baselines=false"]
    expected, metrics, places = there.submit(pretended_runs.whole_runs, [*data[task], *options, *more]).result()
    for split in ("valid", "test"):
        assert figures(metrics[split]) == pytest.approx(figures(expected[split]), rel=1e-9)
    between = {place.partition(":")[0] for place in places - READ}
    allowed = ("experiment/preparation", "training/checkpoint", "inference/predictions", "inference/outcomes")
    assert between <= {f"runner/{item}.py" for item in allowed}


@pytest.mark.parametrize(
    ("work", "most"),
    [
        ("tag embedding=word_char task.head=crf encoder=blstm batching=padmask", 14),
        ("tag embedding=word_char task.head=crf encoder=blstm batching=packed", 12),
        ("classify encoder=lstm batching=packed", 7),
        ("classify encoder=transformer batching=padmask", 4),
        ("stream", 1),
    ],
)
def test_an_update_sends_few_arrays(
    there: ProcessPoolExecutor, data: dict[str, list[str]], work: str, most: int
) -> None:
    """Index maps that a batch needs, each once."""
    task, *options = work.split()
    seen = there.submit(pretended_runs.on_device, [*data[task], *options]).result()
    assert 0 < sum(seen.copies.values()) <= most, seen.copies


def test_an_adaptive_softmax_waits_as_it_says(there: ProcessPoolExecutor, data: dict[str, list[str]]) -> None:
    seen = there.submit(pretended_runs.on_device, [*data["lines"], "task.cutoffs=[4]"]).result()
    assert {place for _, place in seen.waits} - READ == {"tasks/heads/language_model.py:AdaptiveVocabulary.nll"}


def test_a_layer_that_waits_is_found(there: ProcessPoolExecutor, data: dict[str, list[str]]) -> None:
    seen = there.submit(pretended_runs.of_a_layer_that_waits, [*data["tag"], "encoder=none"]).result()
    with pytest.raises(AssertionError):
        check(seen)


@pytest.mark.parametrize("piece", pretended_runs.PIECES)
def test_what_waits_is_noted_and_what_is_wrong_fails(there: ProcessPoolExecutor, piece: str) -> None:
    actual = there.submit(pretended_runs.noted, piece).result()
    if piece.startswith("two"):
        assert "tensors on pretended and on the CPU" in actual
    elif piece == "array":
        assert "numpy" in actual
    else:
        assert (actual == 0) == (piece in ("free", "sent at once")), actual


def check(seen: pretended_runs.Seen) -> None:
    """Nothing waited but for the losses and norms of all updates at once, and for what was evaluated at its end."""
    waits = [place.removesuffix(".<locals>.<genexpr>") for _, place in seen.waits]
    assert set(waits) <= READ, seen.waits
    assert waits.count(LOSSES) == 2
    # Thresholds are chosen in an evaluation of their own.
    assert len(waits) <= (10 if "tasks/heads/label_sets.py:ThresholdChooser.choose" in waits else 8)


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, float)}
