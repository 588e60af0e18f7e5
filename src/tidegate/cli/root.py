"""`tidegate root`: the root ceremony, on files. Only `publish` needs a network."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli.client import Client, with_client
from tidegate.cli.output import Output, with_output
from tidegate.core.metadata import RoleKeys, RootDocument, keys_of, parse_root, root_extra
from tidegate.publisher.ceremony import (
    begin_root,
    check_root,
    describe_root,
    read_ceremony,
    root_progress,
    words_of,
)

_FILE = click.Path(path_type=Path)


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
    draft = begin_root(
        read_ceremony(file),
        previous=ceremony.optional(previous),
        now=ceremony.now(),
        raise_epoch=raise_epoch,
    )
    target.write_bytes(draft)
    out.note(
        f"{_describe(parse_root(draft))}\n\n"
        "  ok  every threshold can be met\n"
        "  ok  no public key stands under two names\n"
        "  ok  no key stands in two trust levels\n\n"
        f"Words   {words_of(draft)}\n"
        "Next    carry the draft to each holder and read them the words by voice:\n"
        f"        tidegate root sign {target} --key KEY"
    )
    out.made(str(target), words=words_of(draft))


@command.command("show")
@click.argument("file", type=_FILE)
@with_output
def show(file: Path, out: Output) -> None:
    """Show what a root or a draft says, and its words.

    \b
    tidegate root show root.draft.json
    tidegate root show root.1.json --json
    """
    document = parse_root(ceremony.read_document(file))
    words = words_of(document.body)
    value = {
        "version": document.version,
        "expires_at": document.expires_at,
        "tenant": root_extra(document).tenant,
        "lab": root_extra(document).lab,
        "words": words,
        "roles": {
            name: {"needs": role.threshold, "keys": ceremony.key_list(role.keys)}
            for name, role in describe_root(document)
        },
    }
    out.data("root/1", value, f"{_describe(document)}\n\nWords   {words}")


@command.command("sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Your key file.")
@click.option("--words", help="The draft's words, where nobody can be asked.")
@with_output
def sign(file: Path, key: Path, words: str | None, out: Output) -> None:
    """Sign a draft with one key, after typing its words.

    \b
    tidegate root sign root.draft.json --key ben-root.key
    """
    document = parse_root(ceremony.read_document(file))
    what = f"You are about to sign\n{_describe(document)}\n"
    ceremony.sign_file(file, key, words, what, out)


@command.command("merge")
@click.argument("file", type=_FILE)
@click.argument("signatures", type=_FILE, nargs=-1, required=True)
@click.option("--previous", type=_FILE, help="The root before it.")
@with_output
def merge(file: Path, signatures: tuple[Path, ...], previous: Path | None, out: Output) -> None:
    """Put signatures into a draft; when there are enough, the root is made.

    \b
    tidegate root merge root.draft.json root.draft.ben-root.sig
    """
    before = ceremony.optional(previous)
    document = parse_root(ceremony.read_document(file))
    holders: list[RoleKeys] = [keys_of(document, "root")]
    if before is not None:
        holders.append(keys_of(parse_root(before), "root"))
    merged, _ = ceremony.merge_files(file, signatures, holders)
    steps = root_progress(merged, before)
    out.note(ceremony.progress_text(steps))
    ceremony.require_complete(steps)
    target = file.with_name(f"root.{document.version}.json")
    target.write_bytes(merged)
    out.note("Complete.")
    out.made(str(target))


@command.command("check")
@click.argument("file", type=_FILE)
@click.option("--against", type=_FILE, help="The root before it.")
@with_output
def check(file: Path, against: Path | None, out: Output) -> None:
    """Check a root with the code that devices run.

    \b
    tidegate root check root.1.json
    tidegate root check root.2.json --against root.1.json
    """
    body, now = ceremony.read_document(file), ceremony.now()
    document = check_root(body, previous=ceremony.optional(against), now=now)
    days = (document.expires_at - now) // 86_400
    value = {"version": document.version, "ok": True, "days_left": days, "words": words_of(body)}
    text = (
        "  ok  enough distinct root keys signed\n"
        "  ok  accepted by the code that a device runs\n"
        f"  ok  expires in {days} days\n"
        f"Root {document.version} of {root_extra(document).tenant} is ready."
        f" Words: {words_of(body)}"
    )
    out.data("check/1", value, text)


@command.command("publish")
@click.argument("file", type=_FILE)
@with_client
@with_output
def publish(file: Path, client: Client, out: Output) -> None:
    """Send a root to the server, which checks it as a device would.

    \b
    tidegate root publish root.1.json
    """
    ceremony.publish_document("root", file, client, out)


def _describe(document: RootDocument) -> str:
    extra = root_extra(document)
    until = ceremony.date(document.expires_at)
    title = f"ROOT {document.version} of tenant {extra.tenant}, until {until}"
    lines = [f"{title}: who may sign everything else."]
    if extra.lab:
        lines.append("LAB KEYS: one person can sign everything. Never for devices in the field.")
    lines += ["", "  ROLE         NEEDS    KEYS"]
    lines += [ceremony.holders_line(name, role) for name, role in describe_root(document)]
    lines.append(f"  epoch {extra.authorities.epoch}")
    return "\n".join(lines)
