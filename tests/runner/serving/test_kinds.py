"""Models of every kind of prediction answer in MLflow's pyfunc as the commands do, to the bit, alone and in a batch."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any
from urllib.request import Request, urlopen

import mlflow
import pandas as pd
import pytest

from runner.cli import generate, predict
from runner.tracking.mlflow_model import write_model
from runner.tracking.run_folder import read_result
from tests.helpers.runs_of_tasks import FILES, ROWS, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow, about its own dependencies
COLUMNS = {"classify": "label", "many": "labels", "regress": "value", "pairs": "label", "tag": "tags"}


def loaded(run: Path, place: Path) -> Any:
    result = read_result(run)
    assert result is not None
    write_model(run, place, "run", "m-1", result)
    return mlflow.pyfunc.load_model(str(place))


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Answers as a server writes them."""
    return json.loads(json.dumps(frame.to_dict("records")))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", FILES)
def test_predictions_are_those_of_the_command(runs_of_tasks: dict[str, Path], tmp_path: Path, name: str) -> None:
    write_rows(name, tmp_path / "rows.jsonl")
    wanted = [] if name == "regress" else ["--probabilities"]
    files = ["--input", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out"), "--format", "jsonl"]
    assert predict.main([str(runs_of_tasks[name]), *files, *wanted]) == 0
    lines = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    fields = [COLUMNS[name], *(f"{COLUMNS[name]}_probability" for _ in wanted)]
    expected = [{field: json.loads(line)[field] for field in fields} for line in lines]

    model, params = loaded(runs_of_tasks[name], tmp_path / "model"), {"probabilities": bool(wanted)}
    frame = pd.DataFrame(ROWS[name])
    frame = frame.astype(object).where(frame.notna(), None)  # MLflow refuses NaN where a list of tokens may be
    assert records(model.predict(frame, params=params)) == expected
    answers = [model.predict(pd.DataFrame([row]), params=params) for row in ROWS[name]]
    alone = [record for answer in answers for record in records(answer)]
    if name == "regress":  # a number is not rounded: its last digit in float32 depends on the shape of a product
        expected = [pytest.approx(record, rel=1e-6) for record in expected]
    assert alone == expected


def test_a_language_model_continues_texts_as_the_command(
    language_model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = loaded(language_model_run, tmp_path / "model")
    prompts = ["the", "the dog"]
    for params, flags in (({}, []), ({"temperature": 0.9, "seed": 3}, ["--temperature", "0.9", "--seed", "3"])):
        answer = model.predict(pd.DataFrame({"text": prompts}), params={"max_tokens": 5, **params})
        texts = [f"prompt={prompt}" for prompt in prompts]
        assert generate.main([str(language_model_run), *texts, "--max-tokens", "5", "--json", *flags]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        best = [(line["prompt"], line["continuations"][0]) for line in lines]
        assert answer["text"].tolist() == [prompt + found["text"] for prompt, found in best]
        assert answer["log_p"].tolist() == [found["log_p"] for _, found in best]


def test_a_server_continues_texts_as_the_model_in_python(language_model_run: Path, tmp_path: Path) -> None:
    """MLflow's own server, in a thread of this process: its start by the command is in test_serving.py."""
    import uvicorn
    from mlflow.pyfunc.scoring_server import init

    model = loaded(language_model_run, tmp_path / "model")
    server = uvicorn.Server(uvicorn.Config(init(model), host="127.0.0.1", port=0, log_level="critical"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        for params in ({"max_tokens": 5}, {"max_tokens": 5, "temperature": 0.9, "seed": 3}):
            for prompts in (["the", "the dog"], ["the dog"]):
                body = json.dumps({"dataframe_records": [{"text": text} for text in prompts], "params": params})
                header = {"Content-Type": "application/json"}
                request = Request(f"http://127.0.0.1:{port}/invocations", body.encode(), header)
                with urlopen(request, timeout=60) as response:
                    answer = json.load(response)["predictions"]
                assert answer == records(model.predict(pd.DataFrame({"text": prompts}), params=params))
    finally:
        server.should_exit = True
        thread.join()
