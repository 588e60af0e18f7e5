"""One client that looks once for a release, in a process of its own: `ours` is the worker's path, `theirs` python-tuf's client, `bare` only the interpreter."""

import json
import sys
import time
from pathlib import Path

NOW = 1_795_000_000
PRODUCT, PATH = "gw7", "gw7/2.50.0/rootfs"


def ours(url: str, folder: Path, anchor: bytes) -> None:
    """Refresh as the worker does, with everything that a worker has loaded."""
    from tidegate.agent import worker
    from tidegate.agent.board import SystemClock
    from tidegate.agent.files import StateDirectory
    from tidegate.agent.net.link import HttpTransport
    from tidegate.agent.trust.store import TrustStore
    from tidegate.core.verify import verify_release

    if worker.Worker.__name__ not in vars(worker):
        raise AssertionError
    begin = time.process_time()
    store = TrustStore(
        StateDirectory(str(folder)), HttpTransport(url), anchor, NOW, clock=SystemClock()
    )
    store.refresh_root()
    found = verify_release(store.refresh(PRODUCT), PATH)
    say(begin, found.release.release_counter)


def theirs(url: str, folder: Path, anchor: bytes) -> None:
    """Refresh with python-tuf's client."""
    from datetime import UTC, datetime

    from tuf.ngclient.updater import Updater

    begin = time.process_time()
    updater = Updater(str(folder), f"{url}/d/v1/repo/", bootstrap=anchor)
    updater._trusted_set.reference_time = datetime.fromtimestamp(NOW, UTC)  # noqa: SLF001 - it has no other way in
    updater.refresh()
    found = updater.get_targetinfo(PATH)
    if found is None:
        raise LookupError(PATH)
    say(begin, found.unrecognized_fields["custom"]["tidegate"]["release_counter"])


def say(begin: float, counter: int) -> None:
    """Print what it took."""
    if counter != 50:
        raise ValueError(counter)
    print(json.dumps({"cpu_s": time.process_time() - begin, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """Return the highest resident memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main(who: str, url: str, folder: str, root: str) -> None:
    """Look once."""
    if who == "bare":
        print(json.dumps({"cpu_s": 0.0, "peak_mib": peak_mib()}))
        return
    {"ours": ours, "theirs": theirs}[who](url, Path(folder), Path(root).read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
