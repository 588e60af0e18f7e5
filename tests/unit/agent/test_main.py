"""The agent's command line as a process."""

import os
import subprocess
import sys


def test_a_reader_that_goes_away_gets_no_stack_trace() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "tidegate.agent.main", "--help"]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            command,
            env=buffered,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
