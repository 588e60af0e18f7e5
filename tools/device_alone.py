"""What a device carries: its two packages beside a bare virtual environment with only its dependencies."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".cache" / "agent-alone"
PACKAGES: Final = ("core", "agent")
LISTS: Final = ("agent", "test")


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"agent-alone: {text}", file=sys.stderr, flush=True)


def environment() -> Path:
    """Return the interpreter of the bare environment, made anew when a list changed."""
    lists = [ROOT / "requirements" / f"{name}.txt" for name in LISTS]
    want = hashlib.sha256(b"".join(path.read_bytes() for path in lists)).hexdigest()
    stamp = HOME / "stamp"
    python = HOME / "venv" / "bin" / "python"
    if python.exists() and stamp.exists() and stamp.read_text() == want:
        return python
    say("making a bare environment with the base dependencies")
    shutil.rmtree(HOME, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(HOME / "venv")], check=True)
    options = [part for path in lists for part in ("-r", str(path))]
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "install", "-q", "--require-hashes", *options], check=True)
    stamp.write_text(want)
    return python


def tree(*doubles: str) -> Path:
    """Copy what a device carries, and only that; return the folder that stands in for site-packages.

    Args:
        doubles: packages that tests want beside it: `sim`, whose boards and links stand in for hardware.
    """
    folder = HOME / "-".join(("tree", *doubles))
    shutil.rmtree(folder, ignore_errors=True)
    source = ROOT / "src" / "tidegate"
    (folder / "tidegate").mkdir(parents=True)
    shutil.copy(source / "__init__.py", folder / "tidegate")
    unwanted = shutil.ignore_patterns("__pycache__")
    for package in (*PACKAGES, *doubles):
        shutil.copytree(source / package, folder / "tidegate" / package, ignore=unwanted)
    return folder
