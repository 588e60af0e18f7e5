"""`tidegate targets`: which keys speak for which product; the same ceremony as root's."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli import _changes as changes
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_output
from tidegate.client import Client
from tidegate.core.accept import alone
from tidegate.core.metadata import (
    TargetsDocument,
    keys_of,
    parse_root,
    parse_targets,
    product_role,
    products_of,
)
from tidegate.publisher.ceremony import begin_targets, check_targets, progress, words_of
from tidegate.publisher.compare import compare_targets

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
    announce(begin_targets({}, previous=body, now=ceremony.now()), target, out, body)


@command.command("show")
@click.argument("file", type=_FILE)
@click.option("--previous", type=_FILE, help="The targets before it [targets.N.json beside it].")
@with_output
def show(file: Path, previous: Path | None, out: Output) -> None:
    """Show what targets or a draft say, what they change, and their words.

    \b
    tidegate targets show targets.draft.json
    """
    body = ceremony.read_document(file)
    document, before = _with_before(body, file, previous)
    words = words_of(body)
    value = {
        "version": document.version,
        "expires_at": document.expires_at,
        "words": words,
        "products": {
            name: {
                "needs": keys_of(document, product_role(name)).threshold,
                "keys": ceremony.key_list(keys_of(document, product_role(name)).keys),
                "names": ceremony.key_names(keys_of(document, product_role(name)).keys),
            }
            for name in products_of(document)
        },
        "one_signer": list(alone(document)),
        "changes": changes.plain(compare_targets(document, before)) if before else None,
    }
    out.data("targets/1", value, f"{describe(document, before)}\n\nWords   {words}")


@command.command("sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Your key file.")
@click.option("--previous", type=_FILE, help="The targets before it [targets.N.json beside it].")
@click.option("--words", help="The draft's words, where nobody can be asked.")
@with_output
def sign(file: Path, key: Path, previous: Path | None, words: str | None, out: Output) -> None:
    """Sign a draft with one key, after typing its words.

    \b
    tidegate targets sign targets.draft.json --key ada-targets.key
    """
    body = ceremony.read_document(file)
    document, before = _with_before(body, file, previous)
    what = f"You are about to sign {describe(document, before)}\n"
    ceremony.sign_file(file, key, words, what, out)


@command.command("merge")
@click.argument("file", type=_FILE)
@click.argument("signatures", type=_FILE, nargs=-1, required=True)
@_ROOT
@click.option("--previous", type=_FILE, help="The targets before it [targets.N.json beside it].")
@with_output
def merge(
    file: Path, signatures: tuple[Path, ...], root: Path, previous: Path | None, out: Output
) -> None:
    """Put signatures into a draft; when there are enough, targets are made.

    \b
    tidegate targets merge targets.draft.json targets.draft.ada-targets.sig --root root.1.json
    """
    trusted = ceremony.read_document(root)
    holders = keys_of(parse_root(trusted), "targets")
    merged, found = ceremony.merge_files(file, signatures, [holders])
    document, before = _with_before(merged, file, previous)
    steps = [progress(merged, holders)]
    out.note(ceremony.progress_text(steps, found))
    ceremony.require_complete(steps)
    old = before.body if before is not None else None
    check_targets(merged, root=trusted, previous=old, now=ceremony.now())
    target = file.with_name(f"targets.{document.version}.json")
    target.write_bytes(merged)
    out.note(ceremony.complete_text(steps[0]))
    out.made(str(target))


@command.command("check")
@click.argument("file", type=_FILE)
@_ROOT
@click.option("--against", type=_FILE, help="The targets before it [targets.N.json beside it].")
@with_output
def check(file: Path, root: Path, against: Path | None, out: Output) -> None:
    """Check targets with the code that devices run.

    \b
    tidegate targets check targets.1.json --root root.1.json
    """
    body, now = ceremony.read_document(file), ceremony.now()
    trusted = ceremony.read_document(root)
    document, before = _with_before(body, file, against)
    old = before.body if before is not None else None
    check_targets(body, root=trusted, previous=old, now=now)
    done = progress(body, keys_of(parse_root(trusted), "targets"))
    found = compare_targets(document, before)
    days = ceremony.days_left(document.expires_at)
    value = {
        "version": document.version,
        "ok": True,
        "days_left": days,
        "words": words_of(body),
        "one_signer": list(alone(document)),
        "changes": changes.plain(found),
    }
    lines = [
        f"  ok  {len(done.signed)} of {len(done.signed) + len(done.unsigned)} targets keys signed",
        "  ok  no key stands in two trust levels, each product's paths are its own",
        "  ok  accepted by the code that a device runs",
        f"  ok  expires in {days} days",
        *changes.warning_lines(found),
    ]
    if before is not None:
        lines += ["", *changes.change_lines(found, "targets"), ""]
    lines.append(f"Targets {document.version} are ready. Words: {words_of(body)}")
    out.data("check/1", value, "\n".join(lines))


@command.command("publish")
@click.argument("file", type=_FILE)
@ceremony.WITH
@with_client
@with_output
def publish(file: Path, more: tuple[Path, ...], client: Client, out: Output) -> None:
    """Send targets to the server, which checks them as a device would.

    \b
    tidegate targets publish targets.1.json
    tidegate targets publish targets.2.json --with product.gw1.2.json
    """
    ceremony.publish_document("targets", file, client, out, more)


def announce(draft: bytes, target: Path, out: Output, previous: bytes | None) -> None:
    """Write a draft, say what it changes and what comes next."""
    target.write_bytes(draft)
    document = parse_targets(draft)
    before = parse_targets(previous) if previous is not None else None
    words = words_of(draft)
    out.note(
        f"Draft of {describe(document, before)}\n\nWords   {words}\n"
        f"Next    tidegate targets sign {target} --key KEY"
    )
    found = compare_targets(document, before)
    out.made(str(target), words=words, changes=changes.plain(found))


def describe(document: TargetsDocument, before: TargetsDocument | None) -> str:
    """Write what targets say and what they change, for people."""
    found = compare_targets(document, before)
    until = ceremony.date(document.expires_at)
    lines = [
        f"TARGETS {document.version}, until {until}: which keys speak for which product.",
        "",
        "  PRODUCT      NEEDS    KEYS",
        *changes.ring_lines(found.rings, notes={}),
        "",
    ]
    if document.version > 1 and before is None:
        lines.append(
            "  warning  the targets before it are not here, so what changes cannot be shown"
        )
    else:
        lines += changes.change_lines(found, "targets")
    return "\n".join([*lines, *changes.warning_lines(found)])


def _with_before(
    body: bytes, file: Path, given: Path | None
) -> tuple[TargetsDocument, TargetsDocument | None]:
    document = parse_targets(body)
    before = ceremony.document_before(given, file, "targets", document.version)
    return document, parse_targets(before) if before is not None else None
