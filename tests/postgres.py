"""A PostgreSQL server for one run of the tests: in a folder of its own, reached over a Unix socket and a loopback port that the system chose.

It is started when a test first asks and stopped when the process ends, and it forgets on purpose: fsync is off. Each test gets a database of its own, which
nobody used before or which is again as it was then.
"""

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from tests import wiping

#: Any database of the test server, for making others.
_DEFAULT: Final = "postgres"
_USER: Final = "postgres"
_START_S: Final = 60
_OPTIONS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "autovacuum": "off",
}


def binaries() -> Path | None:
    """Return the folder of the newest server that is installed, or None."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda one: int(one.parts[-3])
    )
    if found:
        return found[-1].parent
    named = shutil.which("postgres")
    return Path(named).parent if named else None


class Server:
    """A running server. Use `server()` for the one that tests share."""

    def __init__(self, **options: str) -> None:
        """Make it and start it.

        Args:
            options: settings beside those that make it fast; a None leaves out one of those.
        """
        self._bin = binaries()
        if self._bin is None:
            pytest.skip("tier: PostgreSQL: install the Debian package postgresql")
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-pg-"))
        if os.getuid() == 0:
            shutil.chown(self._folder, _USER, _USER)
        self._data = self._folder / "data"
        self.port = _free_port()
        self._options = {**_OPTIONS, **options}
        self._names = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self._lent: set[str] = set()
        self._clean: list[str] = []
        self._make()
        self.start()

    def _make(self) -> None:
        """Make what it serves."""
        self._run(
            "initdb", "--pgdata", str(self._data), "--username", _USER, "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
        )  # fmt: skip

    def _command(self, name: str, *arguments: str) -> list[str]:
        assert self._bin is not None
        return self.as_its_user(str(self._bin / name), *arguments)

    @staticmethod
    def as_its_user(*command: str) -> list[str]:
        """Return a command that runs as the server does: PostgreSQL refuses to be run by root."""
        return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups", *command] if os.getuid() == 0 else [*command]  # fmt: skip

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(name, *arguments), capture_output=True, text=True, cwd="/", check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start it, also again."""
        settings = [f"{name}={value}" for name, value in self._options.items()]
        settings += [f"port={self.port}", "listen_addresses=127.0.0.1"]
        settings += [f"unix_socket_directories={self._folder}"]
        arguments = [part for one in settings for part in ("-c", one)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self._data), *arguments),
                stdout=log, stderr=log, cwd="/", start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return
            if time.monotonic() > until or self._process.poll() is not None:
                raise AssertionError((self._folder / "log").read_text())
            time.sleep(0.05)

    def move(self, data: Path, *, without: tuple[str, ...] = ()) -> None:
        """Run on another data folder from the next start on, and without some of the settings."""
        self._data = data
        self._options = {name: one for name, one in self._options.items() if name not in without}

    @property
    def pid(self) -> int:
        """The process that all others of the server come from."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT = at once but in order, SIGQUIT = as in a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        """End it and remove what it left."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str = _DEFAULT, *, socketed: bool = False) -> str:
        """Return the address of a database, over loopback or over the Unix socket."""
        place = f"%2F{str(self._folder)[1:].replace('/', '%2F')}" if socketed else "127.0.0.1"
        return f"postgresql://{_USER}@{place}:{self.port}/{database}"

    def connect(self, database: str = _DEFAULT) -> psycopg.Connection[Any]:
        """Open a connection that commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True)

    def database(self, template: str = "template0") -> str:
        """Make a database and return its address."""
        name = f"t{next(self._names)}"
        with self.connect() as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Take a database back: one that was `migrated` is lent again where it can be made as it was, all others are removed, whoever is in them."""
        name = url.rpartition("/")[2]
        if url in self._lent:
            self._lent.remove(url)
            with self.connect(name) as conn:
                if wiping.wipe(conn, self._migrated[1]):
                    self._clean.append(url)
                    return
        with self.connect() as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @functools.cached_property
    def _migrated(self) -> tuple[str, wiping.Fresh]:
        from tidegate.server.store.postgres import upgrade_schema

        url = self.database()
        upgrade_schema(url)
        name = url.rpartition("/")[2]
        with self.connect(name) as conn:
            return name, wiping.look(conn)

    def migrated(self) -> str:
        """Return the address of a database whose schema is current and that holds nothing."""
        url = self._clean.pop() if self._clean else self.database(self._migrated[0])
        self._lent.add(url)
        return url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def server() -> Server:
    """Return the server that all tests of this process share."""
    made = Server()
    atexit.register(made.close)
    return made


@contextlib.contextmanager
def database(make: Callable[[Server], str] = Server.migrated) -> Iterator[str]:
    """Lend an address of a database that nobody else has; its schema is current."""
    shared = server()
    url = make(shared)
    try:
        yield url
    finally:
        shared.drop(url)
