"""One run, from its config to its result: everything is built here, in the order in which data flows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from runner import names
from runner.accounting import Account, Clock, KernelWatch, Memory
from runner.batching.stream import Stream
from runner.build import build, check_options
from runner.checkpoint import load_checkpoint, save_checkpoint
from runner.columns import Data, load
from runner.errors import HydromelError
from runner.model import build_model, parameter_count
from runner.provenance import provenance
from runner.records import RunFolder
from runner.sync import deliver_pending
from runner.task import Head
from runner.tracker import DeliveryError, Tracker
from runner.train import Progress, Settings, Training, evaluate, fit
from runner.types import PositiveInt

Config = dict[str, Any]
Say = Callable[[str], None]
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def check_root(
    *,
    seed: int,
    device: Literal["auto", "cpu", "cuda"],
    dtype: Literal["float32", "float64"],
    precision: Literal["float32", "bf16"],
    threads: PositiveInt | None,
    data_dir: str | None,
    cache_dir: str | None,
    max_length: PositiveInt | None,
    runs_dir: str,
    resume: str | None,
    plugins: list[str],
    features: dict[str, Any],
    embedding: dict[str, Any],
    encoder: dict[str, Any],
    batching: dict[str, Any],
    optimizer: dict[str, Any],
    schedule: dict[str, Any],
    tracker: dict[str, Any],
    dataset: dict[str, Any],
    task: dict[str, Any],
    train: dict[str, Any],
    sweep: dict[str, Any],
    run_plots: dict[str, Any] | None,
    choices: dict[str, str | None],
) -> None:
    """The top level of a config: its signature is the schema, and calling it does nothing."""


@dataclass(frozen=True)
class Experiment:
    """What a run is made of, once built."""

    config: Config
    data: Data
    training: Training
    memory: Memory
    tracker: Tracker
    device: torch.device


def run_experiment(config: Config, folder: Path, started: float, say: Say) -> dict[str, Any]:
    """Train, evaluate, record, deliver.

    Args:
        config: resolved, as in resolved.yaml.
        folder: the run's; if it holds an unfinished run with a checkpoint, that run goes on.
        started: unix time at which the program started.
        say: prints one line.

    Raises:
        HydromelError: bad input; the run is marked as failed, and what it did is kept.
    """
    check_options(check_root, config, "")
    tracker: Tracker = build(config["tracker"], "tracker", {}, config["plugins"])
    tracker.check()
    plots = None if config["run_plots"] is None else build(config["run_plots"], "run_plots", {}, config["plugins"])
    with start_folder(config, folder) as run:
        try:
            experiment = prepare(config, run, tracker, say)
            startup = time.time() - started
            fit(experiment.training)
            experiment.training.clock.seconds["startup"] += startup
            result = finish(experiment, time.time() - started)
        except BaseException as error:
            status = names.INTERRUPTED if isinstance(error, KeyboardInterrupt) else names.FAILED
            run.flush()
            run.set_status(status, str(error) or type(error).__name__)
            deliver(tracker, run, say, final=True)
            raise
        run.flush()
        run.write_result(result)
        if plots is not None:
            plots.draw(run.path)
        run.set_status(names.FINISHED)
        deliver(tracker, run, say, final=True)
    _deliver_earlier(tracker, Path(config["runs_dir"]), say)
    return result


def start_folder(config: Config, folder: Path) -> RunFolder:
    """The run's folder with its identity in it."""
    if (folder / names.RESULT).exists():
        raise HydromelError(f"{folder} holds a finished run; choose another hydra.run.dir")
    choices = config["choices"]
    tags = {
        name: str(choices.get(name) or name_of(config, name)) for name in ("task", "dataset", "embedding", "encoder")
    }
    tags |= {"batching": config["batching"]["name"], "seed": str(config["seed"])}
    # what differs within a sweep comes first: MLflow cuts long names
    name = "-".join([tags["batching"], f"s{config['seed']}", tags["task"], tags["dataset"], tags["encoder"]])
    sweep_id = config["sweep"]["id"]
    return RunFolder.start(folder, name=name, experiment=choices.get("experiment"), sweep_id=sweep_id, tags=tags)


def name_of(config: Config, node: str) -> str:
    """What reports call a component: its own name, or the class that it is built from."""
    return str(config[node].get("name") or config[node]["_target_"].rsplit(".", 1)[-1].lower())


def prepare(config: Config, run: RunFolder, tracker: Tracker, say: Say) -> Experiment:
    """Build everything, and take up an earlier checkpoint of this folder if there is one."""
    plugins = config["plugins"]
    check_options(Settings, config["train"], "train")
    settings = Settings(**config["train"])
    device = choose_device(config)
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    torch.manual_seed(config["seed"])

    task = build(config["task"], "task", {}, plugins)
    batching = build(config["batching"], "batching", {}, plugins)
    data = load_data(config, task)
    say(describe_data(config, data))
    splits = {name: split.to(device) for name, split in data.splits.items()}
    train = arrange(config, batching, splits["train"])
    model = build_model(config, task, data.vocabs, plugins).to(device=device, dtype=_DTYPES[config["dtype"]])

    optimizer = build(config["optimizer"], "optimizer", {"params": model.parameters()}, plugins)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    per_epoch = len(batching.updates(train.rows.host_lengths, config["seed"], 0))
    total = min(per_epoch * settings.epochs, settings.max_updates or per_epoch * settings.epochs)
    counts = {"total_updates": total, "updates_per_epoch": per_epoch}
    schedule = build(config["schedule"], "schedule", counts, plugins)

    clock = Clock(device)
    training = Training(
        model=model,
        head=cast(Head, model.head),
        task=task,
        metric=lambda: task.metric(data.vocabs),
        metric_name=settings.metric or task.quality,
        batching=batching,
        optimizer=optimizer,
        schedule=schedule,
        train=train,
        valid=splits["valid"],
        settings=settings,
        seed=config["seed"],
        bf16=config["precision"] == "bf16",
        run=run,
        clock=clock,
        save=lambda name: save_checkpoint(checkpoint_path(run.path, name), model, training_state(training)),
        after_evaluation=lambda metrics, loss: _record_epoch(training, tracker, say, metrics, loss),
    )
    if checkpoint_path(run.path, "last").exists():
        restore(training, load_checkpoint(checkpoint_path(run.path, "last"), model))
        say(f"going on from epoch {training.progress.epoch + 1}, update {training.progress.updates}")
    return Experiment(config, Data(splits, *_rest(data)), training, Memory(device), tracker, device)


def _rest(data: Data) -> tuple[Any, ...]:
    return data.vocabs, data.oov_rate, data.truncated_tokens, data.fingerprint, data.cached


def choose_device(config: Config) -> torch.device:
    """The configured device.

    Raises:
        HydromelError: cuda where there is none, or an arithmetic that does not fit.
    """
    wanted = config["device"]
    if wanted == "cuda" and not torch.cuda.is_available():
        raise HydromelError("device=cuda, but torch sees no GPU; use device=auto or device=cpu")
    if config["precision"] == "bf16" and config["dtype"] == "float64":
        raise HydromelError("precision=bf16 needs dtype=float32, got dtype=float64")
    cuda = torch.cuda.is_available() if wanted == "auto" else wanted == "cuda"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def load_data(config: Config, task: Any) -> Data:
    """The data set as integers."""
    plugins = config["plugins"]
    corpus = build(config["dataset"], "dataset", {}, plugins)
    features = {name: build(node, f"features.{name}", {}, plugins) for name, node in config["features"].items()}
    if not features:
        raise HydromelError("features={}: at least one is needed, for example features=words")
    cache = None if config["cache_dir"] is None else Path(config["cache_dir"]).expanduser()
    data = load(corpus, features, task, json.dumps(config["task"], sort_keys=True), config["max_length"], cache)
    for name, split in data.splits.items():
        if not split.rows.n_rows:
            raise HydromelError(f"dataset={corpus.name}: {name} has no examples")
    return data


def arrange(config: Config, batching: Any, train: Any) -> Any:
    """Training rows as the strategy wants them; a stream and rows are not mixed up."""
    one_text = config["task"].get("unit") == "stream"
    if one_text != isinstance(batching, Stream):
        raise HydromelError(
            f"task.unit=stream and batching=stream go together; got task.unit={config['task'].get('unit')} and "
            f"batching={batching.name}"
        )
    if one_text and config["max_length"] is not None:
        raise HydromelError("max_length cuts rows, and a stream has only one; use max_length=null")
    return batching.arrange(train)


def describe_data(config: Config, data: Data) -> str:
    """One line for the console."""
    sizes = ", ".join(f"{name} {split.rows.n_rows:,}" for name, split in data.splits.items())
    tokens = data.splits["train"].real_tokens
    words = ", ".join(f"{len(vocab):,} {name}" for name, vocab in data.vocabs.items())
    where = "from the cache" if data.cached else "read"
    return f"{name_of(config, 'dataset')} ({where}): rows {sizes}; {tokens:,} training tokens; vocabulary {words}"


def checkpoint_path(folder: Path, name: str) -> Path:
    return folder / names.CHECKPOINTS / f"{name}.safetensors"


def training_state(t: Training) -> dict[str, Any]:
    """All that a resumed run needs besides the parameters."""
    cuda = t.clock.device.type == "cuda"
    return {
        "optimizer": t.optimizer.state_dict(),
        "schedule": t.schedule.state(),
        "progress": asdict(t.progress) | {"carried": t.progress.carried},
        "account": t.account.state(),
        "seconds": dict(t.clock.seconds),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(t.clock.device) if cuda else None,
    }


def restore(t: Training, state: Mapping[str, Any]) -> None:
    """Take training up where a checkpoint left it."""
    t.optimizer.load_state_dict(state["optimizer"])
    t.schedule.restore(state["schedule"])
    t.progress = Progress(**state["progress"])
    t.account = Account(**state["account"])
    t.clock.seconds.update(state["seconds"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] is not None and t.clock.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], t.clock.device)


def deliver(tracker: Tracker, run: RunFolder, say: Say, final: bool = False) -> None:
    """Send records; if that fails, say so and go on: the folder keeps them."""
    try:
        tracker.deliver(run.path, final)
    except DeliveryError as error:
        say(f"warning: {error}; records stay in {run.path}, `hydromel-sync` delivers them")


def _deliver_earlier(tracker: Tracker, root: Path, say: Say) -> None:
    try:
        if root.is_dir() and (count := deliver_pending(root, tracker)):
            say(f"delivered {count} earlier run(s)")
    except HydromelError as error:
        say(f"warning: {error}")


def _record_epoch(t: Training, tracker: Tracker, say: Say, metrics: dict[str, Any], loss: float) -> None:
    """One line, one record, one delivery after an evaluation."""
    account, progress = t.account, t.progress
    figures = {f"valid/{name}": value for name, value in metrics.items() if isinstance(value, float)}
    cost = {"train/seconds": account.training_seconds, "train/tokens": float(account.real_tokens)}
    epoch = progress.epoch + (progress.update > 0)  # counted from 1; one that was cut short counts
    t.run.log(progress.updates, epoch, figures | cost)
    t.run.flush()
    tokens_per_s = account.real_tokens / max(account.training_seconds, 1e-9)
    positions = account.real_tokens + account.padded_tokens
    say(
        f"epoch {epoch:3d}  updates {progress.updates:6,d}  loss {loss:8.4f}  "
        f"valid {t.metric_name} {metrics[t.metric_name]:8.2f}  {tokens_per_s:9,.0f} tok/s  "
        f"padding {100 * account.padded_tokens / max(1, positions):4.1f} %  {account.training_seconds:7.1f} s"
    )
    deliver(tracker, t.run, say)


def finish(experiment: Experiment, total_seconds: float) -> dict[str, Any]:
    """Evaluate the best checkpoint on test, and put the result together."""
    t, data, config = experiment.training, experiment.data, experiment.config
    memory = experiment.memory.state()
    load_checkpoint(checkpoint_path(t.run.path, "best"), t.model)
    metrics = {"valid": t.progress.best_metrics}
    majority = None
    t.clock.start()
    if "test" in data.splits:
        batches = t.batching.evaluation(data.splits["test"], t.settings.eval_batch_size)
        metrics["test"] = evaluate(t.model, t.metric(), batches, t.bf16)
        cpu = torch.device("cpu")
        majority = t.task.majority(data.splits["train"].to(cpu), data.splits["test"].to(cpu), data.vocabs)
    t.clock.lap("evaluation")
    t.clock.settle()
    seconds = t.clock.seconds | {"total": total_seconds}
    tags = t.run.run["tags"]
    return {
        "run_id": t.run.run_id,
        "name": t.run.run["name"],
        **{key: tags[key] for key in ("task", "dataset", "embedding", "encoder", "batching")},
        "seed": config["seed"],
        "sweep_id": t.run.run["sweep_id"],
        "experiment": t.run.run["experiment"],
        "quality": {"metric": t.task.quality, "higher_is_better": names.higher_is_better(t.task.quality)},
        "metrics": metrics,
        "majority": majority,
        "speed": t.account.speed(t.settings.warmup_updates),
        "tokens": {
            "real": t.account.real_tokens,
            "padded": t.account.padded_tokens,
            "supervised": t.account.supervised,
            "truncated": data.truncated_tokens["train"] + t.batching.dropped_tokens(data.splits["train"]),
        },
        "padding": t.account.padding,
        "seconds": seconds,
        "memory": memory,
        "kernel": kernel(t),
        "updates": {
            "count": t.progress.updates,
            "epochs": t.progress.epoch,
            "digest": t.progress.digest,
            "dropout": uses_dropout(t.model),
        },
        "model": {"parameters": parameter_count(t.model)},
        "vocab": {"size": {name: len(vocab) for name, vocab in data.vocabs.items()}, "oov_rate": data.oov_rate},
        "provenance": provenance(config, experiment.device, data.fingerprint),
    }


def kernel(t: Training) -> str:
    """What really runs for a training batch of this strategy: torch's own operations, watched for one forward pass."""
    rows = t.batching.updates(t.train.rows.host_lengths, t.seed, 0)[0]
    batch = next(t.batching.micro_batches(t.train, rows))
    t.model.train()
    with KernelWatch() as watch, torch.autocast(t.clock.device.type, torch.bfloat16, enabled=t.bf16):
        t.model(batch, None)
    text: str = watch.describe(t.batching.layout)
    return text


def uses_dropout(model: torch.nn.Module) -> bool:
    """Whether any probability of dropping is above 0, so that equal updates draw different masks."""
    rates = (getattr(module, "p", getattr(module, "dropout", 0.0)) for module in model.modules())
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
