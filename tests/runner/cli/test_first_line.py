"""What a start costs: the first line comes before slow imports, and a run imports nothing that it does not need."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from runner.cli.main import COMMANDS, TRAIN
from tests.helpers.composed import QUIET, tag_files

OTHERS = [name for name in COMMANDS if name != TRAIN]
# never imported by a small run without a tracker: seconds in all
UNNEEDED = ("torch._dynamo", "sympy", "matplotlib", "mlflow", "sklearn", "datasets", "transformers")


def test_the_first_line_comes_before_anything_slow_is_imported() -> None:
    code = (
        "from runner.cli import main; import sys; main.import_module = lambda name: sys.exit(len(sys.modules) > 400)\n"
        "sys.argv = sys.argv[1:]; main.main() if sys.argv[0] == 'hydromel' else main.program()"
    )
    for name, arguments in {"hydromel": ["seed=1"], **{f"hydromel-{name}": ["x"] for name in OTHERS}}.items():
        ours, terminal = pty.openpty()
        done = subprocess.run([sys.executable, "-c", code, name, *arguments], stderr=terminal)
        expected = name.replace("-", " ") if "-" in name else "hydromel train"
        assert os.read(ours, 100).decode().strip() == f"{expected} ..."
        assert done.returncode == 0, "the dispatcher imports hundreds of modules"
        os.close(terminal)
        os.close(ours)


def test_help_and_mistakes_import_nothing_slow() -> None:
    code = (
        "import sys; from runner.cli.main import COMMANDS, main\n"
        "def ended(*arguments):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "    slow = [name for name in sys.argv[1:] if name in sys.modules]\n"
        "    if slow: sys.exit(f'{arguments} {slow}')\n"
        "for name in COMMANDS:\n"
        "    ended(name, '--help'); ended(name, '--nonsense')\n"
        "for name in ('predict', 'evaluate', 'inspect', 'generate'): ended(name, 'nowhere')\n"
        "ended('export', 'nowhere', '--output', 'x.onnx'); ended('encoder=covn'); ended('batch_size=16')"
    )
    done = subprocess.run([sys.executable, "-c", code, "torch", "scipy", *UNNEEDED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_small_run_imports_nothing_slow_that_it_does_not_need(tmp_path: Path) -> None:
    arguments = [
        *QUIET,
        *tag_files(tmp_path, rows=20),
        "encoder=conv",
        "encoder.filters=4",
        "train.epochs=1",
        "threads=1",
    ]
    code = (
        "import sys; from runner.cli.train import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print('imported', [name for name in {UNNEEDED} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *arguments, f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "imported []", done.stdout + done.stderr
    assert (tmp_path / "run" / "result.json").exists()
