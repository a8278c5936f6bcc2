"""Names that stay stable, since scripts and reports rely on them: a run's files, and the keys of its records.

Percentages (accuracy, F1) are 0-100 everywhere: in `result.json`, in MLflow, in reports.
"""

from collections.abc import Mapping
from typing import Any

# files in a run's folder
RUN = "run.json"  # {run_id, created (unix s), sweep_id, experiment, status, ...}; written first, status kept current
RESOLVED = "resolved.yaml"  # the whole config, nothing left to interpolate
CONSOLE = "console.log"  # what the console showed of the run; a resumed run appends
METRICS = "metrics.jsonl"  # one JSON object a line: {"time": unix s, "step": update, "epoch": n, "metrics": {...}}
RESULT = "result.json"  # written last, atomically: a run with a result is finished
VOCABS = "vocabs.json"  # {feature or "target": its vocabulary}: with it a run is used without its data
CHECKPOINTS = "checkpoints"  # best.safetensors, last.safetensors
BEST = "best.safetensors"
PLOTS = "plots"
PREDICTIONS = "predictions"  # of test, in the data set's own format
OUTCOMES = "outcomes.npz"  # what each example of test contributes to the headline figure (runner/inference/outcomes.py)

# values of run.json's status
RUNNING, FINISHED, FAILED, INTERRUPTED = "running", "finished", "failed", "interrupted"

# top-level keys of result.json
RESULT_KEYS = (
    "run_id",
    "name",
    "task",
    "dataset",
    "embedding",
    "encoder",
    "batching",
    "seed",
    "turn",
    "sweep_id",
    "experiment",
    "quality",  # {"metric": "f1", "higher_is_better": true}
    "metrics",  # {"valid": {...}, "test": {...}}: of the best checkpoint; floats, and tables of detail by name
    "majority",  # what always answering the most frequent label of train gets on test (same keys as metrics.test)
    "baselines",  # {name: the same figures and "seconds"} of other models as simple
    "speed",
    "tokens",
    "padding",
    "characters",  # of words that were composed of theirs in training, or null
    "seconds",
    "memory",
    "energy",  # that the GPU took in training, or null
    "arithmetic",  # which share of the device's matrix products training used, or null
    "advice",  # of batching=auto: what was predicted of every candidate, and the choice; else null
    "kernel",
    "updates",  # {"count", "epochs", "digest", "dropout"}: equal digests = the same rows in every update
    "model",  # {"parameters": n}
    "vocab",  # {"size": {...}, "oov_rate": {split: {feature: share 0..1}}, "vectors": [{"path": ..., "coverage": ...}]}
    "provenance",
)
SPEED_KEYS = ("real_tokens_per_s", "examples_per_s", "updates_per_s", "timed_updates", "warmup_updates", "by_length")
LENGTH_KEYS = ("longest", "updates", "real_tokens", "places", "seconds")  # of each entry of speed.by_length
TOKEN_KEYS = ("real", "padded", "supervised", "truncated")
CHARACTER_KEYS = ("real", "padded")
PADDING_CAUSES = ("spread", "last_batch", "rounding")
SECONDS_KEYS = ("data", "forward", "backward", "optimizer", "evaluation", "tracking", "startup", "total")
ENERGY_KEYS = ("joules", "joules_per_thousand_tokens", "source")
ARITHMETIC_KEYS = ("flops_per_place", "achieved_flops_per_s", "device_flops_per_s", "share", "dtype")
MEMORY_KEYS = ("peak_bytes", "before_training_bytes", "source", "peak_batch", "micro_batch")

LOWER_IS_BETTER = frozenset({"perplexity", "nll", "loss", "bits_per_character", "word_perplexity"})

# tags of an MLflow run
TAG_RUN_ID = "hydromel.run_id"
TAG_SWEEP = "sweep.id"
TAG_TRIAL = "search.trial"  # its number; the search is the sweep
TAG_PRUNED = "search.pruned"  # when a trial was ended because others did better


def higher_is_better(metric: str) -> bool:
    """Whether more of `metric` (with or without a `valid/` or `test/` before it) is better."""
    return metric.rsplit("/", 1)[-1] not in LOWER_IS_BETTER


def unbeaten_baselines(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the simplest models that the run does not beat, with their figures on test: {"majority": 15.7, ...}.

    Args:
        result: as in result.json; figures that are missing or null are left out.
    """
    quality, metrics = _mapping(result.get("quality")), _mapping(result.get("metrics"))
    metric = str(quality.get("metric"))
    value = _mapping(metrics.get("test")).get(metric)
    if not isinstance(value, float | int):
        return {}
    sign = 1 if quality.get("higher_is_better", True) else -1
    others = {"majority": result.get("majority"), **_mapping(result.get("baselines"))}
    figures = {name: _mapping(other).get(metric) for name, other in others.items()}
    known = {name: figure for name, figure in figures.items() if isinstance(figure, float | int) and figure == figure}
    return {name: figure for name, figure in known.items() if not sign * value > sign * figure}  # NaN beats nothing


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one: records may be damaged."""
    return value if isinstance(value, Mapping) else {}
