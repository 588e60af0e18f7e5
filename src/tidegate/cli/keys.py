"""`tidegate keys`: make keys, look at them, and see what lapses when. Only `calendar` speaks to a server."""

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

import click
import msgspec

from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_output
from tidegate.client import Client
from tidegate.core.amounts import format_duration
from tidegate.core.calendar import Due, Entry, days, due_of, entries, icalendar
from tidegate.core.caps import ROLE_MAX
from tidegate.core.codec import canonical
from tidegate.core.errors import ConfigError
from tidegate.core.keys import Signer
from tidegate.core.metadata import parse_root, parse_targets
from tidegate.publisher import signers
from tidegate.publisher.bundle import read as read_bundle
from tidegate.publisher.ceremony import document_role
from tidegate.publisher.keyfile import (
    MEMORY_KIB,
    PASSES,
    PublicFile,
    Role,
    change_passphrase,
    import_key,
    new_key,
    open_key,
    read_public,
    write_public,
)
from tidegate.publisher.lab import PASSPHRASE_NAME
from tidegate.publisher.signers import import_public, is_uri
from tidegate.publisher.words import digest_words

_ROLES = click.Choice(["root", "targets", "product", "incident", "any"])


@click.group("keys")
def command() -> None:
    """Make keys, look at keys.

    \b
    tidegate keys new ben-root --role root
    tidegate keys show ben-root.pub.json
    """


@command.command("new")
@click.argument("name")
@click.option("--role", type=_ROLES, default="any", show_default=True, help="What it is for.")
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="The key file [NAME.key].")
@click.option(
    "--type", "kind", type=click.Choice(["ed25519", "p256"]), default="ed25519", show_default=True
)
@with_output
def new(name: str, role: str, out_path: Path | None, kind: str, out: Output) -> None:
    """Make a key, sealed with a passphrase.

    \b
    tidegate keys new ben-root --role root
    tidegate keys new ci-product --role product --type p256 --out ci.key
    """
    path, name = out_path or Path(f"{name}.key"), Path(name).name
    keytype: Literal["ed25519", "ecdsa"] = "ecdsa" if kind == "p256" else "ed25519"
    passphrase = ask_new_passphrase()
    began = time.monotonic()
    made = new_key(path, name, passphrase, role=cast("Role", role), keytype=keytype)
    took = time.monotonic() - began
    title = "P-256" if kind == "p256" else "Ed25519"
    out.note(
        f"Made in {took:.1f} s   {title}, sealed with Argon2id ({MEMORY_KIB >> 10} MiB, t={PASSES})"
        f" and AES-256-GCM\n"
        f"  private  {made.private_path}   keep it offline; nobody can recover it\n"
        f"  public   {made.public_path}   give this to whoever prepares the ceremony\n"
        f"  key id   {made.public.keyid[:12]}\n"
        f"  words    {key_words(made.public)}\n"
        "Read the words to the others; they must see the same ones."
    )
    out.made(str(made.public_path), keyid=made.public.keyid)


@command.command("import")
@click.argument("name")
@click.option("--from", "source", required=True, help="A PEM file, or the URI of a token's key.")
@click.option("--role", type=_ROLES, default="any", show_default=True, help="What it is for.")
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="The key file [NAME.key].")
@with_output
def import_(name: str, source: str, role: str, out_path: Path | None, out: Output) -> None:
    """Take in a key that was made elsewhere: a PEM file, or one that stays in a token or key service.

    A PEM key (Ed25519 or P-256, `openssl genpkey`) is sealed anew; delete the PEM file afterwards. Of a key in a
    token (hsm:, PKCS#11, P-256) or service (awskms: gcpkms: azurekms: hv:) only NAME.pub.json is written: sign with it.

    \b
    tidegate keys import ci-product --role product --from ci.pem
    tidegate keys import ada-root --role root --from 'hsm:2?label=ada'
    """
    wanted = cast("Role", role)
    if is_uri(source):
        _import_remote(Path(name), source, wanted, out_path, out)
        return
    path = out_path or Path(f"{name}.key")
    made = import_key(
        Path(source),
        path,
        Path(name).name,
        lambda: _secret(f"Passphrase of {source}", "TIDEGATE_IMPORT_PASSPHRASE_FILE"),
        ask_new_passphrase,
        role=wanted,
    )
    _told(made.public, made.private_path, made.public_path, out)
    out.note(f"{source} still lies there as it was. Delete it once this key has signed something.")
    out.made(str(made.public_path), keyid=made.public.keyid)


def _import_remote(path: Path, source: str, role: Role, out_path: Path | None, out: Output) -> None:
    uri, key = import_public(source, ask_pin)
    target = out_path or path.with_name(f"{path.name}.pub.json")
    keytype: Literal["ed25519", "ecdsa"] = "ecdsa" if key.keytype == "ecdsa" else "ed25519"
    public = PublicFile(
        name=path.name, role=role, keyid=key.keyid, keytype=keytype, public=key.public, uri=uri
    )
    write_public(target, public)
    _told(public, Path(uri), target, out)
    out.note(f"Sign with --key {target}; its private half never leaves where it is.")
    out.made(str(target), keyid=key.keyid, uri=uri)


def _told(public: PublicFile, private: Path, beside: Path, out: Output) -> None:
    title = "P-256" if public.keytype == "ecdsa" else "Ed25519"
    out.note(
        f"Imported   {title}\n"
        f"  private  {private}\n"
        f"  public   {beside}   give this to whoever prepares the ceremony\n"
        f"  key id   {public.keyid[:12]}\n"
        f"  words    {key_words(public)}\n"
        "Read the words to the others; they must see the same ones."
    )


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@with_output
def show(file: Path, out: Output) -> None:
    """Show a key's public half; the private one stays sealed.

    \b
    tidegate keys show ben-root.pub.json
    tidegate keys show ben-root.key --json
    """
    found = read_public(file)
    text = (
        f"{found.name}   for {found.role}   {found.keytype}\n"
        f"  key id   {found.keyid}\n  words    {key_words(found)}"
        + (f"\n  private  {found.uri}" if found.uri else "")
    )
    out.data("key/1", _plain(found), text)


@command.command("list")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@with_output
def list_keys(folder: Path, out: Output) -> None:
    """List the keys in a folder.

    \b
    tidegate keys list
    tidegate keys list keys --json
    """
    found = []
    for path in sorted([*folder.glob("*.key"), *folder.glob("*.pub.json")]):
        if path.name == "online.pub.json":
            continue  # the server's four, not a person's one
        try:
            found.append({"file": path.name, **_plain(read_public(path))})
        except ConfigError as error:
            out.note(f"warning  {path.name}: {error.detail}")
    out.table("keys/1", found, ["file", "name", "role", "keytype", "key"], empty="no keys here")


@command.command("export-pub")
@click.argument("file", type=click.Path(path_type=Path))
@with_output
def export_pub(file: Path, out: Output) -> None:
    """Print a key's public half, ready for the ceremony.

    \b
    tidegate keys export-pub ben-root.key > ben-root.pub.json
    """
    found = read_public(file)
    out.data("public_key/1", found, canonical(found).decode())


@command.command("change-pass")
@click.argument("file", type=click.Path(path_type=Path))
@with_output
def change_pass(file: Path, out: Output) -> None:
    """Seal a key anew with another passphrase.

    \b
    tidegate keys change-pass ben-root.key
    """
    old = ask_passphrase(file)
    change_passphrase(file, old, ask_new_passphrase("TIDEGATE_NEW_PASSPHRASE_FILE"))
    out.made(str(file))


@command.command("calendar")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1)
@click.option("--ics", is_flag=True, help="An iCalendar file on stdout, with alarms.")
@with_client
@with_output
def calendar(files: tuple[Path, ...], ics: bool, client: Client, out: Output) -> None:
    """Show what lapses when, and what to do: root, targets, products, online roles, grants.

    Of the server's documents, or of the files named: documents and bundles. Alarms come 30, 14 and 7 days before, a root's first one
    60 days before.

    \b
    tidegate keys calendar
    tidegate keys calendar --ics > tidegate.ics
    tidegate keys calendar root.2.json targets.2.json product.gw1.2.json
    """
    now = int(time.time())
    if files:
        found = entries([due for file in files for due in _dues(file)], now)
        loud: tuple[str, ...] = ()
        place = "files"
    else:
        answer = client.calendar_list()
        found = msgspec.convert(msgspec.to_builtins(answer.items), type=tuple[Entry, ...])
        loud, place = answer.one_signer, urlsplit(client.server).netloc
    if ics:
        click.echo(icalendar(found, now=now, place=place), nl=False)
        return
    rows = [{**msgspec.to_builtins(one), **_shown(one)} for one in found]
    columns = ["role", "version", "expires", "left", "by", "state", "fix"]
    out.table("calendar/1", rows, columns, empty="nothing is published")
    for name in loud:
        out.note(f"warning  ONE person can release {name} to every device")


def _shown(one: Entry) -> dict[str, str]:
    left = days(one.expires_in_s)
    return {
        "expires": f"{datetime.fromtimestamp(one.expires_at, UTC):%Y-%m-%d}",
        "left": f"{left} days" if left > 1 else format_duration(max(0, one.expires_in_s)),
        "by": one.keeper,
        "state": one.level.upper() if one.level == "expired" else one.level,
        "fix": one.fix if one.level != "ok" else "",
    }


def _dues(file: Path) -> list[Due]:
    """Take the expiry of a document, or of every document in a bundle.

    Raises:
        ConfigError: `config.unreadable`. PublisherError: `sig.malformed`, `release.malformed`.
    """
    try:
        with file.open("rb") as opened:
            body = opened.read(ROLE_MAX + 1)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{file}: {error.strerror}") from error
    if body[:1] != b"{":
        return [due_of(role, *_facts(one)) for role, one in read_bundle(file).documents.items()]
    return [due_of(document_role(body), *_facts(body))]


def _facts(body: bytes) -> tuple[int, int]:
    root = document_role(body) == "root"
    document = parse_root(body) if root else parse_targets(body)
    return document.version, document.expires_at


def key_words(public: PublicFile) -> str:
    """Return the words of a key: to be read to the others by voice."""
    return digest_words(public.key.identity.encode())


def ask_passphrase(path: Path) -> str:
    """Ask for the passphrase of a key: from the file that the environment names, the lab's, or a prompt.

    Raises:
        ConfigError: `key.passphrase`: nobody can be asked.
    """
    beside = path.parent / PASSPHRASE_NAME
    if beside.is_file() and not os.environ.get("TIDEGATE_KEY_PASSPHRASE_FILE"):
        return _from_file(beside)
    return _secret(f"Passphrase of {path.name}", "TIDEGATE_KEY_PASSPHRASE_FILE")


def ask_pin(what: str) -> str:
    """Ask for what a token wants before it signs, mostly its PIN.

    Raises:
        ConfigError: `key.passphrase`: nobody can be asked.
    """
    shown = "PIN of the token" if what == "pin" else what.capitalize()
    return _secret(shown, "TIDEGATE_PIN_FILE")


def _secret(question: str, variable: str) -> str:
    """Take a secret from the file that the environment names, or ask. It is never an argument: those are seen by everybody."""
    if named := os.environ.get(variable):
        return _from_file(Path(named))
    if not sys.stdin.isatty():
        hint = f"answer on a terminal, or name a file with {variable}"
        raise ConfigError(
            "key.passphrase", f"{question}: there is no terminal to ask on", hint=hint
        )
    return str(click.prompt(question, hide_input=True, err=True))


def ask_new_passphrase(variable: str = "TIDEGATE_KEY_PASSPHRASE_FILE") -> str:
    """Ask for a new passphrase, twice on a terminal.

    Raises:
        ConfigError: `key.passphrase`: nobody can be asked.
    """
    if named := os.environ.get(variable):
        return _from_file(Path(named))
    if not sys.stdin.isatty():
        raise ConfigError("key.passphrase", f"no terminal to ask on, and no {variable}")
    return str(
        click.prompt(
            "Passphrase (12 characters or more, not shown)",
            hide_input=True,
            confirmation_prompt="Once more",
            err=True,
        )
    )


def open_signer(path: Path) -> Signer:
    """Open a key file, asking for its passphrase; or a key in a token or service, by its public file."""
    public = read_public(path)
    if public.uri:
        return signers.open_signer(public.uri, public.key, ask_pin)
    return open_key(path, lambda: ask_passphrase(path))


def _from_file(path: Path) -> str:
    try:
        return path.read_text().rstrip("\r\n")
    except OSError as error:
        raise ConfigError("key.passphrase", f"{path}: {error.strerror}") from error


def _plain(found: PublicFile) -> dict[str, str]:
    return {
        "name": found.name,
        "role": found.role,
        "keytype": found.keytype,
        "key": found.keyid[:12],
        "keyid": found.keyid,
        "words": key_words(found),
        **({"uri": found.uri} if found.uri else {}),
    }
