"""`tidegate serve`: the control plane. Everything it says is talk (stderr); stdout stays empty."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate import __version__

if TYPE_CHECKING:
    from tidegate.server.app import App
    from tidegate.server.config import Settings

#: A token with all rights, for commands on this machine by whoever may read the data directory.
BOOTSTRAP_NAME = "bootstrap.token"
#: The password of the account `admin`, until somebody has read it.
FIRST_ACCOUNT = "admin.password"
#: Where `tidegate init --lab` puts a root of trust, in the folder that the server is started in.
LAB_TRUST = Path("lab", "trust.bundle")


@click.command("serve", short_help="Run the control plane.")
@click.option("--config", "config", type=click.Path(path_type=Path), help="tidegate.toml")
@click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Data directory.")
@click.option(
    "--shared",
    is_flag=True,
    default=None,
    help="Other processes serve the same directory, all with --shared.",
)
@click.option("--listen", help="HOST:PORT; port 0 takes a free one.")
@click.option("--tls", is_flag=True, default=None, help="HTTPS by an own authority.")
@click.option("--tls-cert", help="Certificate file instead.")
@click.option("--tls-key", help="Its key file.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def command(config: Path | None, *, quiet: bool, **options: Any) -> None:
    """Run the control plane: API, web pages and the device side on one port.

    \b
    tidegate serve
    tidegate serve --data ./tidegate-data --listen 0.0.0.0:8440 --tls
    tidegate serve --shared --listen 127.0.0.1:8441
    """
    from tidegate.server import logs, serve
    from tidegate.server.config import load

    settings = load(config, options=options)
    logs.set_up(settings.log_level, settings.log_format)
    talk = _Talk(settings, quiet=quiet)
    serve.serve(settings, opened=talk.opened, ready=talk.ready)


class _Talk:
    """What is said at the start: everything at the first, three lines at the second."""

    def __init__(self, settings: "Settings", *, quiet: bool) -> None:
        self._began = time.monotonic()
        self._settings = settings
        self._quiet = quiet
        self._folder = Path(settings.data_dir)

    def say(self, text: str = "") -> None:
        """Print one line to stderr."""
        if not self._quiet:
            click.echo(text, err=True)

    def opened(self, app: "App") -> None:
        """Make the first account and the local token; tell what was made."""
        from tidegate.server.auth import Auth

        services = app.services
        auth = Auth(app.store, token_bytes=services.randomness)
        password = auth.first_account(services.now)
        path = self._folder / BOOTSTRAP_NAME
        known = path.read_text().strip() if path.is_file() else ""
        token = auth.local_token(services.now, known)
        if token != known:
            write_secret(path, token + "\n")
        name = "PostgreSQL" if self._settings.database_url else "SQLite"
        kept = self._settings.blobs_url or "folder"
        self.say(f"Tidegate {__version__}   data {self._folder}   database {name}   blobs {kept}")
        if services.keys.made:
            self._first()
        if password is not None:
            self._hand_over(password)
        if services.repository.binding is None:
            self._warn_no_root()

    def _first(self) -> None:
        from tidegate.server.store.migrations import HEAD

        name = f"{self._folder}/"
        self.say(f"  made  {name:24} mode 0700")
        self.say(f"  made  database                 schema {HEAD}")
        self.say("  made  online keys              snapshot, timestamp, director, audit")
        self.say(f"  made  {BOOTSTRAP_NAME:24} for commands on this machine")

    def _hand_over(self, password: str) -> None:
        """Show the first account's password where somebody sits; where nobody does, what is said is kept in a log, so it goes into a file."""
        if sys.stderr.isatty() and not self._quiet:
            self.say(f"  made  account admin            password: {password}")
            self.say("                                 shown once")
            return
        write_secret(self._folder / FIRST_ACCOUNT, password + "\n")
        self.say(f"  made  {FIRST_ACCOUNT:24} of the account admin; read it, then remove it")

    def _warn_no_root(self) -> None:
        self.say()
        self.say("warning[meta.no_root]: no root of trust yet")
        if LAB_TRUST.is_file():
            self.say(
                "  Devices can enrol and report, but nothing can be published. One was made here:"
            )
            self.say(f"  Next:  tidegate release publish {LAB_TRUST}")
            self.say()
            return
        self.say("  Devices can enrol and report, but nothing can be published until people sign")
        self.say(f"  a root offline. Their draft needs {self._folder}/online.pub.json.")
        self.say("  Next:  tidegate root begin ceremony.toml")
        self.say("         tidegate init --lab       to try things out on one machine")
        self.say()

    def ready(self, app: "App", url: str) -> None:
        """Say where, and how long it took."""
        local = url.split("//")[1].startswith(("127.", "localhost", "[::1]"))
        self.say(f"Listening on {url}{'   this machine only; tidegate help tls' if local else ''}")
        if self._settings.tls:
            self.say(f"Devices and browsers trust it with {self._folder}/tls/ca.pem")
        took = time.monotonic() - self._began
        self.say(f"Ready after {took:.1f} s. Ctrl-C stops; nothing that was acknowledged is lost.")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user may read; it is whole or not there."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
