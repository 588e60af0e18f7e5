"""A person at a terminal, for guides: each command runs on a pseudo-terminal of its own, and questions are answered as the person would."""

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# the child is a fork: what is imported here need not be imported by every command again
from tidegate.cli import keys, product, release, root, run, targets
from tidegate.publisher import keyfile

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
IMPORTED = (keys, product, release, root, targets)
BLOCK = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)

#: Given what is on the screen, what the person types; None = nothing is asked.
Answers = Callable[[str], str | None]


class Terminal:
    """Runs commands as they stand in a guide. `env` is added to the environment; what a guide exports is kept."""

    def __init__(self, folder: Path, env: dict[str, str], answers: Answers) -> None:
        self.folder = folder
        self.env = dict(env)
        self._answers = answers

    def run(self, line: str) -> str:
        """Run one command line; return what the person sees, without the prompt."""
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.env[name] = value
            return ""
        if words[0] == "tidegate" and ">" not in words:
            return self._tidegate(words[1:])
        done = subprocess.run(
            ["/bin/sh", "-c", f'tidegate() {{ "{sys.executable}" -m tidegate.cli "$@"; }}; {line}'],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **self.env},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        return done.stdout

    def _tidegate(self, words: list[str]) -> str:
        child, master = pty.fork()
        if child == 0:
            self._be_the_command(words)
        seen, answered = "", 0
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if not select.select([master], [], [], 1)[0]:
                continue
            try:
                piece = os.read(master, 65_536)
            except OSError:
                break
            if not piece:
                break
            seen += piece.decode().replace("\r\n", "\n")
            typed = self._answers(seen[answered:])
            if typed is not None:
                os.write(master, typed.encode() + b"\n")
                answered = len(seen)
        os.close(master)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        # a line that was drawn over, as a progress bar is, shows its last state
        seen = re.sub(r"[^\n]*\r(?=[^\n])", "", seen)
        assert (code == 0) == ("error[" not in seen), (words, code, seen)
        return seen

    def _be_the_command(self, words: list[str]) -> None:
        """Become the command in the child: same code, cheap key derivation, the terminal as its three streams."""
        code = 1
        try:
            os.chdir(self.folder)
            os.environ.update(self.env)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            keyfile.MEMORY_KIB = 64  # type: ignore[misc]
            code = run(words)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def commands(block: str) -> list[tuple[str, str]]:
    """Take a console block apart: each command, with what the guide says is shown."""
    found: list[tuple[str, str]] = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:].rstrip("\n"), ""))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found
