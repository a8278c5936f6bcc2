"""A rank that writes, in the folder that it is given, that it waits for a signal, and then which one it got."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    folder, rank, numbers = Path(sys.argv[1]), os.environ["RANK"], (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    (folder / f"{rank}.waits").touch()
    (folder / f"{rank}.got").write_text(signal.Signals(signal.sigwait(numbers)).name)
