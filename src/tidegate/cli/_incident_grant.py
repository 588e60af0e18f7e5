"""`tidegate incident grant`: leave to go back, drafted by the server, signed by holders of incident keys on their own machines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from tidegate.cli import _ceremony as ceremony
from tidegate.cli import _rollout_text
from tidegate.cli._anchor import explain_anchor, find_anchor
from tidegate.cli._people import confirm, when
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, printable, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_duration
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.grant import GrantBody
from tidegate.core.keys import Signer
from tidegate.core.metadata import RootDocument, parse_root
from tidegate.core.protocol import Envelope
from tidegate.core.verify import TrustedSet
from tidegate.publisher.ceremony import SignatureFile, read_signature
from tidegate.publisher.grant import (
    check_grant_file,
    describe_grant,
    grant_progress,
    holders_of,
    merge_grant,
    read_grant,
    sign_grant,
    words_of,
    write_grant,
)
from tidegate.publisher.publish import published

T = TypeVar("T")
_FILE = click.Path(path_type=Path)
_ROOT = click.option("--root", type=_FILE, help="The root to believe (TIDEGATE_ROOT).")


@click.group("grant")
def grant() -> None:
    """Grant a way back that no release allowed beforehand.

    \b
    tidegate incident grant draft INC-2026-014 --to gw1-2.4.1 --reason "boot loops"
    tidegate incident grant sign INC-2026-014.fallback.json --key gus.key
    """


@grant.command("draft")
@click.argument("name")
@click.option("--to", metavar="RELEASE", default="", help="[the newest live one below]")
@click.option("--cohort", default="exposed", show_default=True, metavar="exposed|variant:V|query:Q")
@click.option("--all", "everybody", is_flag=True, help="Every device, without a list.")
@click.option("--valid", metavar="TIME", help="How long it is good for [14d, or root's limit].")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is signed with it.")
@click.option("--out", "target", type=_FILE, help="A file [NAME.fallback.json].")
@with_client
@with_output
def draft(
    name: str,
    to: str,
    cohort: str,
    everybody: bool,
    valid: str | None,
    reason: str,
    target: Path | None,
    client: Client,
    out: Output,
) -> None:
    """Have the server compute the affected devices and draft a grant for them.

    \b
    tidegate incident grant draft INC-2026-014 --to gw1-2.4.1 --reason "boot loops"
    tidegate incident grant draft INC-2026-014 --cohort variant:gw1-r7 --valid 2d --reason "no network"
    """
    wanted = structs.NewGrant(
        to=to,
        cohort=cohort,
        everybody=everybody,
        valid_s=parse_duration(valid, "--valid") if valid else 0,
        reason=reason,
    )
    made = client.incidents_grants(name, wanted)
    path = target or Path(f"{name}.fallback.json")
    write_grant(path, _as(made.envelope, Envelope))
    envelope, found = read_grant(path)
    words = words_of(envelope)
    out.note("\n".join(_rollout_text.way_back_by_grant(made.way)))
    out.note(
        f"\n{_described(found)}\n\nWords   {words}\n"
        "Next    carry the file to holders of incident keys and read them the words by voice:\n"
        f"        tidegate incident grant sign {path} --key KEY"
    )
    out.made(str(path), words=words, serial=found.serial)


@grant.command("show")
@click.argument("file", type=_FILE)
@with_output
def show(file: Path, out: Output) -> None:
    """Show what a grant or a draft allows, and its words.

    \b
    tidegate incident grant show INC-2026-014.fallback.json
    """
    envelope, found = read_grant(file)
    words = words_of(envelope)
    value = {
        "serial": found.serial,
        "epoch": found.epoch,
        "product": found.product,
        "incident": found.incident,
        "from": sorted({one.release_counter for one in found.leaving}),
        "to": found.to[0].release_counter,
        "devices": found.cohort.count,
        "everybody": found.cohort.all,
        "resume": found.resume.min_counter,
        "expires_at": found.expires,
        "signed_under": [one.keyid for one in envelope.signatures],
        "words": words,
    }
    out.data("grant/1", value, f"It allows {_described(found)}\n\nWords   {words}")


@grant.command("sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Your key file.")
@click.option("--words", help="The draft's words, where nobody can be asked.")
@click.option("--root", type=_FILE, help="The present root: refuses a key that has no say in it.")
@with_output
def sign(file: Path, key: Path, words: str | None, root: Path | None, out: Output) -> None:
    """Sign a draft with one incident key, after typing its words.

    \b
    tidegate incident grant sign INC-2026-014.fallback.json --key gus.key
    """
    envelope, found = read_grant(file)
    holders = None if root is None else [holders_of(_root(root))]

    def make(signer: Signer, name: str) -> SignatureFile:
        return sign_grant(envelope, signer, name, now=ceremony.now())

    what = f"You are about to allow {_described(found)}\n"
    ceremony.sign_by_words(
        file, key, words, what, out, holders, expected=words_of(envelope), make=make
    )


@grant.command("merge")
@click.argument("file", type=_FILE)
@click.argument("signatures", type=_FILE, nargs=-1, required=True)
@_ROOT
@with_client
@with_output
def merge(
    file: Path, signatures: tuple[Path, ...], root: Path | None, client: Client, out: Output
) -> None:
    """Put signatures into a draft; when there are enough, the grant is made.

    \b
    tidegate incident grant merge INC-2026-014.fallback.json *.sig --root root.1.json
    """
    trusted = _root(root) if root is not None else _published(None, root, client, out).root
    holders = holders_of(trusted)
    envelope, _ = read_grant(file)
    given = [read_signature(one) for one in signatures]
    merged = merge_grant(envelope, given, holders)
    write_grant(file, merged)
    steps = [grant_progress(merged, holders)]
    out.note(ceremony.progress_text(steps, given))
    ceremony.require_complete(steps)
    out.note(f"Complete.\nNext    tidegate incident grant publish {file}")
    out.made(str(file))


@grant.command("check")
@click.argument("file", type=_FILE)
@_ROOT
@with_client
@with_output
def check(file: Path, root: Path | None, client: Client, out: Output) -> None:
    """Check a grant with the code that devices run, against what is published.

    \b
    tidegate incident grant check INC-2026-014.fallback.json
    """
    _check(file, root, client, out)


@grant.command("publish")
@click.argument("file", type=_FILE)
@click.option("--yes", is_flag=True, help="Ask nothing; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why [the grant's own reason].")
@_ROOT
@with_client
@with_output
def publish(
    file: Path, yes: bool, reason: str | None, root: Path | None, client: Client, out: Output
) -> None:
    """Hand a signed grant in: its devices are ordered back.

    \b
    tidegate incident grant publish INC-2026-014.fallback.json
    tidegate incident grant publish INC-2026-014.fallback.json --yes --reason "INC-2026-014"
    """
    envelope, found = read_grant(file)
    ceremony.require_complete([grant_progress(envelope, holders_of(_any_root(root, client, out)))])
    drafted = client.incidents_grants_list(found.incident).items
    known = {one.serial: one.devices for one in drafted}
    devices = known.get(found.serial, found.cohort.count)
    what = f"This orders {devices:,} devices back to counter {found.to[0].release_counter}."
    why = confirm(client, out, what, devices, yes=yes, reason=reason)
    signed = structs.SignedGrant(envelope=_as(envelope, structs.Envelope), reason=why)
    done = client.incidents_grants_submit(found.incident, signed)
    _rollout_text.told(out, done)
    out.made(done.name, state=done.state, request=done.request)


# --- parts --------------------------------------------------------------------------------------------------------------


def grant_lines(items: Sequence[structs.GrantFacts]) -> list[str]:
    """Return the lines of an incident's grants."""
    lines = []
    for one in items:
        whom = "every device" if one.everybody else f"{one.devices:,} devices"
        what = f"{one.leaves} back to {one.to}, {whom}"
        how = f"signed by {one.signatures}" if one.signatures else "not signed yet"
        by = f", carried out by {one.rollout}" if one.rollout else ""
        until = when(one.expires_at)
        lines.append(f"  {one.serial}  {what}: {one.state}, {how}, until {until}{by}")
    return [printable(line) for line in lines]


def _check(file: Path, root: Path | None, client: Client, out: Output) -> None:
    envelope, found = read_grant(file)
    trusted = _published(found.product, root, client, out)
    holders = holders_of(trusted.root)
    step = grant_progress(envelope, holders)
    ceremony.require_complete([step])
    _, images = check_grant_file(envelope, trusted, now=ceremony.now())
    days = (found.expires - ceremony.now()) // 86_400
    value = {
        "ok": True,
        "serial": found.serial,
        "images": [one.path for one in images],
        "days_left": days,
    }
    lines = [
        f"  ok  {len(step.signed)} of {holders.threshold} distinct incident keys signed",
        f"  ok  {', '.join(one.path for one in images)}: live, as the product role names it",
        f"  ok  ends in {days} days, and root allows that",
        "  ok  accepted by the code that a device runs; each one adds its own slot, floor and proof",
    ]
    out.data("check/1", value, "\n".join(lines))


def _root(path: Path) -> RootDocument:
    return parse_root(ceremony.read_document(path))


def _any_root(root: Path | None, client: Client, out: Output) -> RootDocument:
    return _published(None, root, client, out).root


def _published(product: str | None, root: Path | None, client: Client, out: Output) -> TrustedSet:
    """Return what the server has published, verified from the root that this machine believes."""
    anchor = find_anchor(root, client, out)
    if anchor is None:
        raise ConfigError("meta.no_root", f"{client.server} has published no root yet")
    try:
        trusted = published(client, anchor, product, now=ceremony.now())
    except PublisherError as error:
        raise explain_anchor(error, client) from error
    if trusted is None:
        raise ConfigError("meta.no_root", f"{client.server} has published nothing yet")
    return trusted


def _described(found: GrantBody) -> str:
    return "\n".join(printable(line) for line in describe_grant(found))


def _as(envelope: msgspec.Struct, kind: type[T]) -> T:
    """Return an envelope as the other end's struct of the same form."""
    return msgspec.json.decode(msgspec.json.encode(envelope), type=kind)
