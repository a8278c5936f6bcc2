"""`hydromel-plan`: its figures are those of a run, it prints what it writes, a mistake is reported in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.advisor.memory_estimate import MemoryEstimator
from runner.advisor.plan_tables import MIB
from runner.advisor.speed_probe import SpeedProbe
from runner.cli.plan import main
from tests.helpers.composed import label_files, run, tag_files
from tests.helpers.published import DATA

MADE = ("encoder.hidden=8", "embedding.size=8", "cache_dir=null")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def planned(*arguments: str) -> dict[str, Any]:
    """The whole report; speed is probed where the arguments say for how long."""
    probed = [] if "--probe-seconds" in arguments else ["--no-probe"]
    assert main([*MADE, *arguments, *probed, "--json", "plan.json"]) == 0
    report: dict[str, Any] = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    return report


def by_name(report: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in report["planned"]}


def test_a_strategy_that_this_machine_cannot_run_is_a_state_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The memory estimate of packed batches, and the probe of bucketed ones, meet a kernel that is not there."""
    missing = "could not create a primitive descriptor for the LSTM forward propagation primitive"
    estimate, seconds = MemoryEstimator.estimate, SpeedProbe._seconds

    def of(self: Any, batching: Any, *more: Any) -> Any:
        if batching.name == "packed":
            raise RuntimeError(f"{missing}. Run workload with environment variable ONEDNN_VERBOSE=all")
        return estimate(self, batching, *more)

    def timed(self: Any, kind: Any, rows: Any) -> Any:
        if kind.batching.name == "bucketed":
            raise RuntimeError(missing)
        return seconds(self, kind, rows)

    monkeypatch.setattr(MemoryEstimator, "estimate", of)
    monkeypatch.setattr(SpeedProbe, "_seconds", timed)
    report = planned(*tag_files(tmp_path), "batching=packed,bucketed,size1", "--probe-seconds", "0.2")
    actual = by_name(report)
    assert [actual[name]["not_run"] for name in ("packed", "bucketed", "size1")] == [missing, missing, ""]
    assert actual["packed"]["memory"] is None
    assert actual["packed"]["padding"] == {"spread": 0.0, "last_batch": 0.0, "rounding": 0.0}  # still told
    assert actual["bucketed"]["predicted"] is None
    assert actual["size1"]["predicted"]["predicted_real_tokens_per_s"] > 0
    output = capsys.readouterr().out
    assert f"not run here: 2 of 3 strategies (packed, bucketed): {missing}" in output
    assert output.count("not run") > 5


# --- figures


@pytest.mark.parametrize("strategy", ["bucketed", "packed", "same_length", "size1", "token_budget", "unmasked"])
def test_a_run_then_does_what_was_planned(strategy: str, tmp_path: Path) -> None:
    options = [*MADE, *tag_files(tmp_path), f"batching={strategy}", "batching.width_multiple=4", "seed=7"]
    (item,) = planned(*options, "--epochs", "2")["planned"]
    result = run(tmp_path / "run", *options, "train.epochs=2")
    places = result["tokens"]["real"] + result["tokens"]["padded"]
    assert item["digest"] == result["updates"]["digest"]
    assert 2 * item["quality"]["updates"] == result["updates"]["count"]
    assert item["padding"] == pytest.approx({cause: n / places for cause, n in result["padding"].items()})
    assert item["memory"]["gradient_bytes"] == 4 * result["model"]["parameters"]
    tokens = item["quality"]["tokens"]
    assert tokens["mean"] * result["updates"]["count"] == pytest.approx(result["tokens"]["real"])


def test_a_stream_too(tmp_path: Path) -> None:
    options = [*MADE, "task=lm", "task.unit=stream", "encoder=gru", "features.words.max_size=50"]
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("the cat sat on the mat\n" * 99, encoding="utf-8")
    options += ["dataset=text", f"data_dir={tmp_path}", *(f"dataset.{item}={item}.txt" for item in ("train", "valid"))]
    report = planned(*options, "dataset.test=test.txt", "batching=stream", "batching.batch_size=4", "--epochs", "2")
    result = run(
        tmp_path / "run",
        *options,
        "dataset.test=test.txt",
        "batching=stream",
        "batching.batch_size=4",
        "train.epochs=2",
    )
    (item,) = report["planned"]
    assert item["digest"] == result["updates"]["digest"]
    assert item["quality"]["repeated_pairs"]["value"] == 1  # streams are never shuffled
    assert item["quality"]["length_target_correlation"] is None
    assert report["length_target_correlation"] is None
    assert item["batch_size"] == item["memory"]["rows"] == 4


def test_all_strategies_that_fit_beside_one_another(tmp_path: Path) -> None:
    report = planned(*tag_files(tmp_path, rows=400), "--epochs", "3")
    actual = by_name(report)
    assert actual.keys() >= {"bucketed", "packed", "padmask", "same_length", "size1", "token_budget", "unmasked"}
    assert list(report["left_out"]) == ["auto", "stream"]
    assert report["device"] is None
    assert {item["predicted"] for item in report["planned"]} == {None}
    assert "task.unit=stream" in report["left_out"]["stream"]
    assert report["epochs"] == 3
    assert actual["size1"]["digest"] == actual["padmask"]["digest"] == actual["packed"]["digest"]
    assert actual["size1"]["quality"] == actual["padmask"]["quality"] == actual["packed"]["quality"]
    assert actual["bucketed"]["digest"] == actual["unmasked"]["digest"] != actual["packed"]["digest"]
    paddings = {name: sum(item["padding"].values()) for name, item in actual.items()}
    assert paddings["packed"] == paddings["same_length"] == paddings["size1"] == 0
    assert paddings["bucketed"] < 0.1 < 0.5 < paddings["padmask"] < 1
    alike = {name: item["quality"]["alike_in_length"]["value"] for name, item in actual.items()}
    assert alike["padmask"] < 0.2 < 0.9 < alike["bucketed"] <= alike["same_length"] == pytest.approx(1)
    again = {name: item["quality"]["repeated_pairs"]["times_chance"] for name, item in actual.items()}
    assert again["packed"] == pytest.approx(1, abs=0.3)
    assert again["bucketed"] > 2
    active = {name: item["memory"]["activation_bytes"] for name, item in actual.items()}
    assert active["size1"] < active["packed"] < active["padmask"]


def test_length_that_tells_the_label_shows(tmp_path: Path) -> None:
    """Rows of one word are of label 0, rows of four of label 1: sorted updates then have one label each."""
    lines = ["0 bad", "1 good film it is"] * 64
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [
        "dataset=sst2",
        f"data_dir={tmp_path}",
        *(f"dataset.{item}={item}.txt" for item in ("train", "valid", "test")),
    ]
    report = planned(*files, "batching=padmask,same_length", "batching.batch_size=16")
    shuffled, same = (by_name(report)[name]["quality"] for name in ("padmask", "same_length"))
    assert report["length_target_correlation"] == pytest.approx(1)
    assert shuffled["length_target_correlation"] == pytest.approx(1)
    assert same["length_target_correlation"] is None  # no length varies inside an update
    assert same["alike_in_targets"]["value"] == pytest.approx(1)
    assert shuffled["alike_in_targets"]["value"] < 0.2


def test_a_line_for_each_batch_size(tmp_path: Path) -> None:
    report = planned(*tag_files(tmp_path), "batching=padmask", "--batch-sizes", "8,16,40")
    assert [item["batch_size"] for item in report["planned"]] == [8, 16, 40]
    assert [item["quality"]["updates"] for item in report["planned"]] == [15, 8, 3]


def test_options_of_batching_hold_for_all(tmp_path: Path) -> None:
    report = planned(
        *tag_files(tmp_path), "batching=packed,padmask", "batching.batch_size=30", "batching.micro_batch=10"
    )
    assert [item["quality"]["rows_per_update"] for item in report["planned"]] == [30, 30]
    assert [item["memory"]["rows"] for item in report["planned"]] == [10, 10]


def test_a_strategy_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own" / "batching"
    own.mkdir(parents=True)
    shipped = Path(__file__).parents[3] / "configs" / "batching" / "packed.yaml"
    text = shipped.read_text(encoding="utf-8").replace("name: packed", "name: mine")
    (own / "mine.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "data").mkdir()
    report = planned(*tag_files(tmp_path / "data"), "--config-dir", str(own.parent))
    assert by_name(report)["mine"]["digest"] == by_name(report)["packed"]["digest"]


# --- what is printed


def test_it_prints_what_it_writes_and_makes_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    report = planned(*label_files(tmp_path / "data"))
    printed = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"data", "plan.json"}
    cost, shuffle = printed.split("Shuffling")
    for item in report["planned"]:
        quality, memory = item["quality"], item["memory"]
        size = "-" if item["batch_size"] is None else str(item["batch_size"])
        cells = cells_of(cost, item["name"])
        assert cells[1:3] == [size, f"{quality['updates']:,.0f}"]
        assert float(cells[5]) == pytest.approx(100 * sum(item["padding"].values()), abs=0.05)
        assert cells[-5:] == [
            f"{memory['rows']} x {memory['width']}",
            f"{memory['tokens']:,}",
            f"{memory['activation_bytes'] / MIB:,.1f}",
            f"{memory['training_bytes'] / MIB:,.1f}",
            f"{memory['evaluation_bytes'] / MIB:,.1f}",
        ]
        cells = cells_of(shuffle, item["name"])
        assert cells[3] == f"{quality['tokens']['smallest']:,} - {quality['tokens']['largest']:,}"
        assert cells[5] == f"{100 * quality['alike_in_length']['value']:.1f}"
        assert cells[-1] == f"{quality['repeated_pairs']['times_chance']:.2f}"
    assert "same updates: packed, padmask, size1" in printed
    assert "left out: stream: task.unit=stream" in printed
    assert "memory is estimated from small batches" in printed


def test_speed_is_probed_and_the_best_recommended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strategies = ["batching=bucketed,packed,unmasked", "--batch-sizes", "2,16"]
    report = planned(*tag_files(tmp_path), *strategies, "--probe-seconds", "0.3", "--epochs", "2")
    printed = capsys.readouterr().out
    assert report["device"] == "cpu"
    speed, _ = printed.split("Speed on cpu")[1].split("Shuffling")
    for item in report["planned"]:
        predicted, tokens = item["predicted"], item["quality"]["tokens"]["mean"] * item["quality"]["updates"]
        rate, seconds = predicted["predicted_real_tokens_per_s"], predicted["predicted_epoch_seconds"]
        assert rate * seconds == pytest.approx(tokens)
        assert (predicted["name"], predicted["batch_size"]) == (item["name"], item["batch_size"])
        assert predicted["padding_share"] == pytest.approx(sum(item["padding"].values()))
        assert f"{rate:,.0f}" in speed
    right = [item for item in report["planned"] if item["name"] != "unmasked"]
    fastest = max(right, key=lambda item: item["predicted"]["predicted_real_tokens_per_s"])
    least = min(right, key=lambda item: item["predicted"]["predicted_peak_bytes"])
    assert f"- predicted fastest: {fastest['name']} (batch size {fastest['batch_size']}); " in printed
    assert "; fastest with shuffled updates: packed" in printed
    assert f"; least memory: {least['name']} (batch size {least['batch_size']})" in printed


def cells_of(table: str, strategy: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.strip().startswith(f"{strategy} "))
    return re.split(r"\s{2,}", line.strip())


def test_a_plan_says_that_it_is_of_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ranks in (1, 3):
        report = planned(*tag_files(tmp_path), "batching=packed", f"ranks={ranks}", "--epochs", "1")
        assert report["ranks"] == ranks
        assert ("those of one process: with ranks=3 each has" in capsys.readouterr().out) == (ranks == 3)


def test_figures_that_have_no_meaning_are_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (item,) = planned(*tag_files(tmp_path), "batching=token_budget", "batching.plan.max_tokens=90", "--epochs", "1")[
        "planned"
    ]
    cost, shuffle = capsys.readouterr().out.split("Shuffling")
    assert item["quality"]["repeated_pairs"] == {"value": None, "chance": None, "times_chance": None}
    assert cells_of(shuffle, "token_budget")[-2:] == ["-", "-"]
    assert cells_of(cost, "token_budget")[1] == cells_of(cost, "token_budget")[4] == "-"


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--bogus", "unrecognized arguments: --bogus"),
        ("-m", "unrecognized arguments: -m"),
        ("--epochs 0", "--epochs: '0' is not a whole number from 1"),
        ("--epochs two", "--epochs: 'two' is not"),
        ("--batch-sizes 16,x", "--batch-sizes 16,x: 'x' is not a whole number from 1"),
        ("--batch-sizes 16,16", "--batch-sizes 16,16: give each size once"),
        ("--batch-sizes 16,016", "give each size once"),
        ("--batch-sizes 16 batching.batch_size=8", "exclude each other"),
        ("--json . encoder=bow", "error: cannot write .: Is a directory"),
        ("--json file/plan.json", "error: cannot write file/plan.json: "),
        ("--json file/new/plan.json", "/file is not a folder"),
        ("--config-dir nowhere", "--config-dir nowhere: no such folder"),
        ("batching=bucketted", "batching=bucketted: unknown; did you mean 'bucketed'?"),
        ("batching=padmask,buckted", "batching=buckted: unknown; did you mean 'bucketed'?"),
        ("encoder=rn", "encoder=rn: unknown; did you mean 'rnn'?"),
        ("encoder", "encoder: not of the form key=value"),
        ("datset=wnut17", "datset"),
        ("task=tag batching=stream", "go together; got task=tag (independent rows) and batching=stream"),
        ("task=lm batching=stream", "go together; got task=lm (independent rows)"),
        ("seed=1,2", "seed=1,2: one value is taken here; only batching=a,b names several"),
        ("encoder=bow,conv", "encoder=bow,conv: one value is taken here"),
        ("batching=packed batching.micro_batch=range(1,3)", "one value is taken here"),
        ("batching=packed,packed", "batching=packed,packed: name each strategy once"),
        ("task=lm encoder=blstm", "encoder.bidirectional"),
        ("task=tag dataset=wnut17", "data_dir=FOLDER"),
        ("batching.batch_size=0", "batching.batch_size=0"),
        ("train.epochs=x", "train.epochs='x'"),
        ("dtype=float64 precision=bf16", "precision=bf16"),
        ("resume=runs/old", "resume=runs/old"),
        ("--probe-seconds 0", "--probe-seconds: '0' is not a number above 0"),
        ("batching=auto", "batching=auto only chooses among the other"),
    ],
)
def test_one_line(arguments: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["cache_dir=null", *arguments.split()]) == 1
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("error: ")
    assert expected in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_needs_no_torch() -> None:
    code = "import sys, runner.cli.plan\ntry: runner.cli.plan.main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "hydromel-plan batching=bucketed --batch-sizes" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_as_a_module_it_ends_with_its_exit_code() -> None:
    done = subprocess.run([sys.executable, "-m", "runner.cli.plan", "--epochs", "0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


# --- published data


@pytest.mark.data
def test_published_tags() -> None:
    report = planned("task=tag", "dataset=wnut17", f"data_dir={DATA}", "--epochs", "2")
    actual = by_name(report)
    assert report["lengths"] == {"rows": 3394, "mean": pytest.approx(62730 / 3394), "longest": 41}
    assert actual["padmask"]["quality"]["updates"] == 107  # 3394 / 32, rounded up
    assert actual["padmask"]["quality"]["alike_in_length"]["times_chance"] == pytest.approx(1, abs=0.15)
    assert actual["bucketed"]["quality"]["alike_in_length"]["value"] > 0.95
    assert actual["bucketed"]["quality"]["repeated_pairs"]["times_chance"] == pytest.approx(14, abs=2)  # of 16 buckets
