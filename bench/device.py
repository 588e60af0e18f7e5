"""One real agent's configuration in a folder, and a claim for it at a control plane."""

import contextlib
import hashlib
import time
from pathlib import Path

from sqlalchemy import insert

from tidegate.server.app import create_app
from tidegate.server.config import Settings
from tidegate.server.store import tables

CLAIM = "claim-of-the-bench"
SLOT_BYTES = 1 << 20
_CONFIG = """
[device]
product = "gw1"
model = "gw1"
revision = 3
id = "dev-bench"

[server]
url = "http://127.0.0.1:{port}"
root = "{folder}/root.json"
claim_file = "{folder}/claim.txt"

[[slot]]
name = "A"
path = "{folder}/slot-a.img"
size = "1MiB"

[[slot]]
name = "B"
path = "{folder}/slot-b.img"
size = "1MiB"

[bootloader]
name = "file"

[bootloader.file]
path = "{folder}/boot.json"

[board]
reboot = "exit:75"

[inhibit]
dir = "{folder}/inhibit.d"

[state]
dir = "{folder}/state"

[socket]
path = "{folder}/agent.sock"
"""


def add_claim(data: Path) -> None:
    """Put a claim into the data directory of a control plane that does not run."""
    now = int(time.time())
    claim = {
        "name": "bench",
        "token_sha256": hashlib.sha256(CLAIM.encode()).hexdigest(),
        "product": "gw1",
        "max_count": 1000,
        "expires_at": now + 3600,
        "created_at": now,
        "created_by": "bench",
    }
    with contextlib.closing(create_app(Settings(data_dir=data))) as app:
        app.services.store.write(lambda conn: conn.execute(insert(tables.claim), claim)).result()


def write_config(folder: Path, port: int) -> Path:
    """Make slots and `agent.toml` of a device of that control plane; return the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    for slot in ("a", "b"):
        (folder / f"slot-{slot}.img").write_bytes(bytes(SLOT_BYTES))
    # No root of trust yet: a device may enrol and poll before the first ceremony.
    (folder / "root.json").write_bytes(b"{}")
    (folder / "claim.txt").write_text(CLAIM)
    path = folder / "agent.toml"
    path.write_text(_CONFIG.format(folder=folder, port=port))
    return path
