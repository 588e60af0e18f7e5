"""A PostgreSQL server that follows another one, and takes over when it is told to."""

import time
from typing import Final

from tests.e2e.breaking import Database

_PATIENCE_S: Final = 60


class Standby(Database):
    """A copy of a running server that gets every change over the wire. In order, or not at all: `deaf`."""

    def __init__(self, primary: Database, **options: str) -> None:
        """Copy `primary` and begin to follow it."""
        self._primary = primary
        super().__init__(**options)

    def _make(self) -> None:
        self._run(
            "pg_basebackup", "--dbname", self._primary.url(), "--pgdata", str(self._data),
            "--write-recovery-conf", "--checkpoint", "fast", "--no-sync",
        )  # fmt: skip

    def wait_for_all(self) -> None:
        """Return when everything that the primary has is here as well."""
        with self._primary.connect() as conn:
            (wanted,) = conn.execute("SELECT pg_current_wal_lsn()").fetchone() or ("",)
        until = time.monotonic() + _PATIENCE_S
        with self.connect() as conn:
            while time.monotonic() < until:
                asked = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
                if conn.execute(asked, (wanted,)).fetchone() == (True,):
                    return
                time.sleep(0.05)
        raise AssertionError("the standby does not follow")

    def deaf(self) -> None:
        """Get nothing from now on, as one whose network is cut."""
        with self.connect() as conn:
            conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
            conn.execute("SELECT pg_reload_conf()")
            until = time.monotonic() + _PATIENCE_S
            while conn.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone():
                assert time.monotonic() < until, "the standby follows on"
                time.sleep(0.05)

    def take_over(self) -> None:
        """Become the primary."""
        with self.connect() as conn:
            assert conn.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)
