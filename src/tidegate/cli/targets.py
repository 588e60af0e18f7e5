"""`tidegate targets`: which keys speak for which product; the same ceremony as root's."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli.client import Client, with_client
from tidegate.cli.output import Output, with_output
from tidegate.core.metadata import (
    TargetsDocument,
    keys_of,
    parse_root,
    parse_targets,
    product_role,
    products_of,
)
from tidegate.publisher.ceremony import begin_targets, check_targets, progress, words_of

_FILE = click.Path(path_type=Path)
_ROOT = click.option("--root", type=_FILE, required=True, help="The present root.")


@click.group("targets")
def command() -> None:
    """Say which keys speak for which product.

    \b
    tidegate product add gw1 --key rita.pub.json --key sam.pub.json --needs 2
    tidegate targets sign targets.draft.json --key ada-targets.key
    """


@command.command("begin")
@click.option("--previous", type=_FILE, required=True, help="The present targets.")
@click.option("--out", "target", type=_FILE, default="targets.draft.json", show_default=True)
@with_output
def begin(previous: Path, target: Path, out: Output) -> None:
    """Draft targets anew, as they are, before they expire.

    \b
    tidegate targets begin --previous targets.1.json
    """
    body = ceremony.read_document(previous)
    announce(begin_targets({}, previous=body, now=ceremony.now()), target, out)


@command.command("show")
@click.argument("file", type=_FILE)
@with_output
def show(file: Path, out: Output) -> None:
    """Show what targets or a draft say, and its words.

    \b
    tidegate targets show targets.draft.json
    """
    document = parse_targets(ceremony.read_document(file))
    words = words_of(document.body)
    value = {
        "version": document.version,
        "expires_at": document.expires_at,
        "words": words,
        "products": {
            name: {
                "needs": keys_of(document, product_role(name)).threshold,
                "keys": ceremony.key_list(keys_of(document, product_role(name)).keys),
            }
            for name in products_of(document)
        },
    }
    out.data("targets/1", value, f"{describe(document)}\n\nWords   {words}")


@command.command("sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Your key file.")
@click.option("--words", help="The draft's words, where nobody can be asked.")
@with_output
def sign(file: Path, key: Path, words: str | None, out: Output) -> None:
    """Sign a draft with one key, after typing its words.

    \b
    tidegate targets sign targets.draft.json --key ada-targets.key
    """
    document = parse_targets(ceremony.read_document(file))
    ceremony.sign_file(file, key, words, f"You are about to sign\n{describe(document)}\n", out)


@command.command("merge")
@click.argument("file", type=_FILE)
@click.argument("signatures", type=_FILE, nargs=-1, required=True)
@_ROOT
@with_output
def merge(file: Path, signatures: tuple[Path, ...], root: Path, out: Output) -> None:
    """Put signatures into a draft; when there are enough, targets are made.

    \b
    tidegate targets merge targets.draft.json targets.draft.ada-targets.sig --root root.1.json
    """
    holders = keys_of(parse_root(ceremony.read_document(root)), "targets")
    merged, _ = ceremony.merge_files(file, signatures, [holders])
    steps = [progress(merged, holders)]
    out.note(ceremony.progress_text(steps))
    ceremony.require_complete(steps)
    target = file.with_name(f"targets.{parse_targets(merged).version}.json")
    target.write_bytes(merged)
    out.note("Complete.")
    out.made(str(target))


@command.command("check")
@click.argument("file", type=_FILE)
@_ROOT
@click.option("--against", type=_FILE, help="The targets before it.")
@with_output
def check(file: Path, root: Path, against: Path | None, out: Output) -> None:
    """Check targets with the code that devices run.

    \b
    tidegate targets check targets.1.json --root root.1.json
    """
    document = check_targets(
        ceremony.read_document(file),
        root=ceremony.read_document(root),
        previous=ceremony.optional(against),
        now=ceremony.now(),
    )
    days = (document.expires_at - ceremony.now()) // 86_400
    value = {"version": document.version, "ok": True, "days_left": days}
    out.data("check/1", value, f"  ok  targets {document.version}, expires in {days} days")


@command.command("publish")
@click.argument("file", type=_FILE)
@with_client
@with_output
def publish(file: Path, client: Client, out: Output) -> None:
    """Send targets to the server, which checks them as a device would.

    \b
    tidegate targets publish targets.1.json
    """
    ceremony.publish_document("targets", file, client, out)


def announce(draft: bytes, target: Path, out: Output) -> None:
    """Write a draft and say what comes next."""
    target.write_bytes(draft)
    out.note(
        f"{describe(parse_targets(draft))}\n\nWords   {words_of(draft)}\n"
        f"Next    tidegate targets sign {target} --key KEY"
    )
    out.made(str(target), words=words_of(draft))


def describe(document: TargetsDocument) -> str:
    """Write what targets say, for people."""
    until = ceremony.date(document.expires_at)
    lines = [
        f"TARGETS {document.version}, until {until}: which keys speak for which product.",
        "",
        "  PRODUCT      NEEDS    KEYS",
    ]
    lines += [
        ceremony.holders_line(name, keys_of(document, product_role(name)))
        for name in products_of(document)
    ]
    return "\n".join(lines)
