"""`tidegate root`: the root ceremony, on files. Only `publish` needs a network."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli import _changes as changes
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, printable, with_output
from tidegate.client import Client
from tidegate.core.accept import LEVELS
from tidegate.core.errors import PublisherError
from tidegate.core.keys import PublicKey
from tidegate.core.metadata import RoleKeys, RootDocument, keys_of, parse_root, root_extra
from tidegate.publisher.ceremony import (
    begin_root,
    check_root,
    describe_root,
    read_ceremony,
    root_progress,
    words_of,
)
from tidegate.publisher.compare import Difference, compare_roots
from tidegate.publisher.keyfile import read_public

_FILE = click.Path(path_type=Path)
#: From so many days before its end on, `tidegate keys calendar` and `tidegate doctor` ask for the next ceremony.
_ALARM_DAYS = 60


@click.group("root")
def command() -> None:
    """Say who may sign everything else: a ceremony of several people.

    \b
    tidegate root begin ceremony.toml
    tidegate root sign root.draft.json --key ben-root.key
    """


@command.command("begin")
@click.argument("file", type=_FILE)
@click.option("--previous", type=_FILE, help="The present root; without it, this is the first.")
@click.option("--raise-epoch", is_flag=True, help="After a theft: restart the director's numbers.")
@click.option("--out", "target", type=_FILE, default="root.draft.json", show_default=True)
@with_output
def begin(file: Path, previous: Path | None, raise_epoch: bool, target: Path, out: Output) -> None:
    """Draft a root from a ceremony file.

    \b
    tidegate root begin ceremony.toml
    tidegate root begin ceremony.toml --previous root.1.json
    """
    before = ceremony.optional(previous)
    draft = begin_root(
        read_ceremony(file), previous=before, now=ceremony.now(), raise_epoch=raise_epoch
    )
    target.write_bytes(draft)
    document, found = _compared(draft, before)
    lines = [
        f"Draft of {_title(document)}",
        "",
        *_body(document, found, None),
        "",
        "  ok  every threshold can be met",
        "  ok  no public key stands under two names",
        "  ok  no key stands in two trust levels",
        *changes.warning_lines(found),
        "",
        f"Words   {words_of(draft)}",
        "Next    carry the draft to each holder and read them the words by voice:",
        f"        tidegate root sign {target} --key KEY",
    ]
    out.note("\n".join(lines))
    out.made(str(target), words=words_of(draft), changes=changes.plain(found))


@command.command("show")
@click.argument("file", type=_FILE)
@click.option("--previous", type=_FILE, help="The root before it [root.N.json beside it].")
@with_output
def show(file: Path, previous: Path | None, out: Output) -> None:
    """Show what a root or a draft says, what it changes, and its words.

    \b
    tidegate root show root.draft.json
    tidegate root show root.1.json --json
    """
    body = ceremony.read_document(file)
    before = _before(previous, file, body)
    document, found = _compared(body, before)
    words = words_of(body)
    value = {
        "version": document.version,
        "expires_at": document.expires_at,
        "tenant": root_extra(document).tenant,
        "lab": root_extra(document).lab,
        "epoch": root_extra(document).authorities.epoch,
        "words": words,
        "roles": {
            name: {
                "needs": role.threshold,
                "keys": ceremony.key_list(role.keys),
                "names": ceremony.key_names(role.keys),
            }
            for name, role in describe_root(document)
        },
        "changes": changes.plain(found) if before is not None else None,
    }
    lines = [_title(document), "", *_body(document, found, None), "", f"Words   {words}"]
    out.data("root/1", value, "\n".join(lines))


@command.command("sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Your key file.")
@click.option("--previous", type=_FILE, help="The root before it [root.N.json beside it].")
@click.option("--words", help="The draft's words, where nobody can be asked.")
@with_output
def sign(file: Path, key: Path, previous: Path | None, words: str | None, out: Output) -> None:
    """Sign a draft with one key, after typing its words.

    \b
    tidegate root sign root.draft.json --key ben-root.key
    """
    body = ceremony.read_document(file)
    before = _before(previous, file, body)
    document, found = _compared(body, before)
    mine = read_public(key).key
    lines = [f"You are about to sign {_title(document)}", "", *_body(document, found, mine)]
    lines += [*changes.warning_lines(found), ""]
    known = document.version == 1 or before is not None
    holders = _holders(document, before)
    ceremony.sign_file(file, key, words, "\n".join(lines), out, holders if known else None)


@command.command("merge")
@click.argument("file", type=_FILE)
@click.argument("signatures", type=_FILE, nargs=-1, required=True)
@click.option("--previous", type=_FILE, help="The root before it [root.N.json beside it].")
@with_output
def merge(file: Path, signatures: tuple[Path, ...], previous: Path | None, out: Output) -> None:
    """Put signatures into a draft; when there are enough, the root is made.

    \b
    tidegate root merge root.draft.json root.draft.ben-root.sig
    """
    body = ceremony.read_document(file)
    before = _required_before(previous, file, body)
    document = parse_root(body)
    merged, found = ceremony.merge_files(file, signatures, _holders(document, before))
    steps = root_progress(merged, before)
    out.note(ceremony.progress_text(steps, found))
    ceremony.require_complete(steps)
    check_root(merged, previous=before, now=ceremony.now())
    target = file.with_name(f"root.{document.version}.json")
    target.write_bytes(merged)
    out.note(ceremony.complete_text(steps[0]))
    out.made(str(target))


@command.command("check")
@click.argument("file", type=_FILE)
@click.option("--against", type=_FILE, help="The root before it [root.N.json beside it].")
@with_output
def check(file: Path, against: Path | None, out: Output) -> None:
    """Check a root with the code that devices run.

    \b
    tidegate root check root.1.json
    tidegate root check root.2.json --against root.1.json
    """
    body, now = ceremony.read_document(file), ceremony.now()
    before = _required_before(against, file, body)
    document = check_root(body, previous=before, now=now)
    _, found = _compared(body, before)
    days = ceremony.days_left(document.expires_at)
    value = {
        "version": document.version,
        "ok": True,
        "days_left": days,
        "words": words_of(body),
        "changes": changes.plain(found),
    }
    own, *earlier = root_progress(body, before)
    lines = [f"  ok  {len(own.signed)} of {_count(own.signed, own.unsigned)} root keys signed"]
    lines += [
        f"  ok  {len(old.signed)} of the {_count(old.signed, old.unsigned)} keys of root"
        f" {document.version - 1} signed, {old.threshold} needed"
        for old in earlier
    ] or ["  ok  first root: nothing to check it against"]
    lines += [
        "  ok  accepted by the code that a device runs",
        f"  ok  expires in {days} days; an alarm starts {_ALARM_DAYS} days before",
        *changes.warning_lines(found),
    ]
    if before is not None:
        lines += ["", *changes.change_lines(found, "root"), ""]
    lines.append(
        f"Root {document.version} of {printable(root_extra(document).tenant)} is ready."
        f" Words: {words_of(body)}"
    )
    out.data("check/1", value, "\n".join(lines))


@command.command("publish")
@click.argument("file", type=_FILE)
@ceremony.WITH
@with_client
@with_output
def publish(file: Path, more: tuple[Path, ...], client: Client, out: Output) -> None:
    """Send a root to the server, which checks it as a device would.

    \b
    tidegate root publish root.1.json
    tidegate root publish root.2.json --with targets.2.json
    """
    ceremony.publish_document("root", file, client, out, more)


# --- parts ----------------------------------------------------------------------------------------------------------------


def _before(given: Path | None, file: Path, body: bytes) -> bytes | None:
    return ceremony.document_before(given, file, "root", parse_root(body).version)


def _required_before(given: Path | None, file: Path, body: bytes) -> bytes | None:
    """Return the root before this one; a later root cannot be judged without it.

    Raises:
        PublisherError: `sig.mix_and_match`.
    """
    before, version = _before(given, file, body), parse_root(body).version
    if before is None and version > 1:
        raise PublisherError(
            "sig.mix_and_match",
            f"root {version} must be signed by the keys of root {version - 1} too",
            hint=f"name it, or lay root.{version - 1}.json beside {file.name}",
        )
    if before is not None and parse_root(before).version >= version > 1:
        raise PublisherError(
            "sig.mix_and_match", f"root {parse_root(before).version} does not come before {version}"
        )
    return before if version > 1 else None


def _holders(document: RootDocument, before: bytes | None) -> list[RoleKeys]:
    found = [keys_of(document, "root")]
    if before is not None:
        found.append(keys_of(parse_root(before), "root"))
    return found


def _compared(body: bytes, before: bytes | None) -> tuple[RootDocument, Difference]:
    document = parse_root(body)
    return document, compare_roots(document, parse_root(before) if before is not None else None)


def _count(signed: tuple[PublicKey, ...], unsigned: tuple[PublicKey, ...]) -> int:
    return len(signed) + len(unsigned)


def _title(document: RootDocument) -> str:
    extra = root_extra(document)
    until = ceremony.date(document.expires_at)
    return (
        f"ROOT {document.version} of tenant {printable(extra.tenant)}, until {until}:"
        " who may sign everything else."
    )


def _body(document: RootDocument, found: Difference, mine: PublicKey | None) -> list[str]:
    extra = root_extra(document)
    epoch = f"epoch {extra.authorities.epoch}"
    notes = dict.fromkeys(LEVELS["online"], "online")
    notes |= dict.fromkeys(("root", "targets"), "offline")
    notes |= {"incident": f"offline, {epoch}", "director": f"online, {epoch}"}
    lines = []
    if extra.lab:
        lines += ["LAB KEYS: one person can sign everything. Never for devices in the field.", ""]
    lines += [
        "  ROLE         NEEDS    KEYS",
        *changes.ring_lines(found.rings, mine=mine, notes=notes),
    ]
    if document.version > 1 and not found.before:
        lines += ["", "  warning  the root before it is not here, so what changes cannot be shown:"]
        lines += [f"           lay root.{document.version - 1}.json beside it, or give --previous"]
        return lines
    return [*lines, "", *changes.change_lines(found, "root")]
