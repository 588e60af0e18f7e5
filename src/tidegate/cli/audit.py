"""`tidegate audit`: what operators did, and whether the log of it still says so."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tidegate.cli import _audit_files as files
from tidegate.cli._people import rows, when
from tidegate.cli._sorting import with_sort
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, printable, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_duration
from tidegate.core.audit.checkpoint import Checkpoint, Verifier, open_note
from tidegate.core.audit.examine import Examined, Heads, examine
from tidegate.core.audit.tree import proves_consistency
from tidegate.core.errors import PublisherError, RequestError, TidegateError

_KEY = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Audit key: root.json, online.pub.json, or a verifier key on one line. May be given again.",
)


@click.group("audit")
def command() -> None:
    """See what operators did, and check that the log of it was not changed.

    \b
    tidegate audit list --action rollout.
    tidegate audit export -o audit.jsonl --checkpoints checkpoints.txt
    tidegate audit verify audit.jsonl checkpoints.txt --key root.json
    """


@command.command("list")
@click.option("--actor", metavar="NAME", help="Who did it.")
@click.option(
    "--action", metavar="ACT", help="`rollout.halt`, or all on a kind of thing: `rollout.`"
)
@click.option("--object", "thing", metavar="NAME", help="What it was done to.")
@click.option("--since", metavar="TIME", help="So long ago at most: 7d.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@with_sort(Client.audit_entries_list)
@with_client
@with_list(structs.AuditRow)
def list_rows(
    actor: str | None,
    action: str | None,
    thing: str | None,
    since: str | None,
    limit: int,
    sort: Any,
    client: Client,
    out: Output,
) -> None:
    """List what operators did, newest first.

    \b
    tidegate audit list
    tidegate audit list --action rollout. --since 7d
    """
    found = client.audit_entries_list(
        sort=sort,
        actor=actor,
        action=action,
        object=thing,
        since=int(time.time()) - parse_duration(since, "--since") if since else None,
        limit=min(limit, 500),
    )
    items = rows(out, itertools.islice(found, limit), _row)
    out.table("audit/1", items, ("seq", "when", "actor", "action", "object", "reason"))


def _row(one: structs.AuditRow) -> dict[str, object]:
    return {"when": when(one.at), "reason": one.detail.get("reason", "")}


@command.command("export")
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), help="File; else stdout."
)
@click.option(
    "--checkpoints", type=click.Path(path_type=Path), help="Write the signed heads there as well."
)
@with_client
@with_output
def export(target: Path | None, checkpoints: Path | None, client: Client, out: Output) -> None:
    """Write the whole log as JSON lines, and the signed heads of it as notes.

    \b
    tidegate audit export -o audit.jsonl --checkpoints checkpoints.txt
    """
    lines = client.audit_export()
    if target is None:
        for line in lines:
            click.echo(line)
    else:
        count = files.write_lines(target, lines)
        out.note(f"{count:,} rows in {target}.")
    if checkpoints is not None:
        notes = [one.note for one in client.audit_checkpoints_list(limit=500)]
        files.write_lines(checkpoints, (line for note in notes for line in note.split("\n")))
        out.note(f"{len(notes):,} checkpoints in {checkpoints}.")


@command.command("checkpoint")
@click.option("--verifier", is_flag=True, help="The key that signs, on one line, instead.")
@with_client
@with_output
def checkpoint(verifier: bool, client: Client, out: Output) -> None:
    """Print the newest signed head of the log: a C2SP checkpoint. Keep it anywhere but on the server.

    \b
    tidegate audit checkpoint >> checkpoints.txt
    tidegate audit checkpoint --verifier > audit.key
    """
    found = client.audit_checkpoint()
    out.data("checkpoint/1", found, found.verifier if verifier else found.note)


@command.command("verify")
@click.argument("export_file", metavar="EXPORT", type=click.Path(path_type=Path))
@click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--checkpoints",
    "places",
    multiple=True,
    metavar="PLACE",
    help="Where `[audit] copy` sends heads: a folder, or s3://BUCKET/PREFIX.",
)
@click.option("--endpoint", metavar="URL", default="", help="Of the object store.")
@_KEY
@with_output
def verify(
    export_file: Path,
    checkpoints: tuple[Path, ...],
    places: tuple[str, ...],
    endpoint: str,
    keys: tuple[str, ...],
    out: Output,
) -> None:
    """Hold an export of the log against its own chain and against checkpoints, offline. Exit code 3 when it does not hold.

    Checkpoints are files of signed notes: from the server, from `tidegate audit watch`, from devices, or a server's own log. What none of them covers is
    vouched for by the server alone.

    \b
    tidegate audit verify audit.jsonl checkpoints.txt --key root.json
    tidegate audit verify audit.jsonl --checkpoints s3://vault/heads --key root.json
    """
    if (checkpoints or places) and not keys:
        raise click.UsageError("checkpoints need --key: the audit key that signs them")
    heads = Heads(files.verifiers(keys))
    files.add_notes(heads, checkpoints)
    for one in places:
        out.note(f"{files.add_copies(heads, one, endpoint):,} copies at {one}.")
    found = examine(files.rows_of(export_file), heads)
    out.data("audit-verdict/1", {"ok": found.ok, **_plain(found)}, _said(found, len(heads.roots)))
    if not found.ok:
        raise PublisherError("audit.mismatch", found.faults[0].text)
    if found.covered < found.rows:
        behind = found.rows - found.covered
        out.note(
            f"No checkpoint covers the last {behind:,} rows: the server alone vouches for them."
        )


def _plain(found: Examined) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _said(found: Examined, heads: int) -> str:
    lines = [
        f"rows         {found.rows:,}   {when(found.begins_at)} to {when(found.ends_at)} UTC",
        f"checkpoints  {heads:,} signed by the key, {found.checkpoints:,} of them agree",
    ]
    if found.ok:
        return "\n".join((*lines, f"The log is whole up to row {found.covered or found.rows:,}."))
    return "\n".join((*lines, *(f"{one.kind:<11}  {printable(one.text)}" for one in found.faults)))


@command.command("watch")
@click.argument("checkpoints", type=click.Path(path_type=Path))
@_KEY
@click.option("--every", default="5m", show_default=True, metavar="TIME")
@click.option("--once", is_flag=True, help="Look once and end.")
@with_client
@with_output
def watch(
    checkpoints: Path, keys: tuple[str, ...], every: str, once: bool, client: Client, out: Output
) -> None:
    """Keep the server's checkpoints in a file, and demand a proof that each goes on from the one before. Exit code 3 at a fork.

    Run it where the server's operators cannot write. The file is what `tidegate audit verify` takes, and all that is remembered.

    \b
    tidegate audit watch checkpoints.txt --key root.json
    """
    if not keys:
        raise click.UsageError("--key is needed: the audit key that signs")
    verifiers, wait_s = files.verifiers(keys), parse_duration(every, "--every")
    while True:
        try:
            found = look(client, checkpoints, verifiers)
            out.note(f"{found.size:,} rows, as before." if found.old else f"{found.size:,} rows.")
        except TidegateError as error:
            if once or not error.retryable:
                raise
            out.note(f"{error.code}: {error.detail}")
        if once:
            return
        time.sleep(wait_s)


class Looked(Checkpoint, frozen=True, kw_only=True):
    """A checkpoint that was believed. `old`: it was held already."""

    old: bool = False


def look(client: Client, path: Path, verifiers: Sequence[Verifier]) -> Looked:
    """Fetch the newest checkpoint, believe it only if it goes on from the one held in `path`, and hold it there. May be repeated.

    Raises:
        PublisherError: `audit.mismatch`: it does not, and both are signed; `audit.checkpoint_forged`.
    """
    held = files.last_note(path)
    known = None if held is None else open_note(held, verifiers)
    note = client.audit_checkpoint().note
    new = open_note(note, verifiers, None if known is None else known.origin)
    same = known is not None and (known.size, known.root) == (new.size, new.root)
    if not same:
        if known is not None and not _goes_on(client, known, new):
            files.append(path.with_name(path.name + ".fork"), note)
            raise PublisherError(
                "audit.mismatch",
                f"the signed checkpoint of {new.size} rows does not go on from that of {known.size}, held in {path};"
                f" it is kept in {path.name}.fork",
            )
        files.append(path, note)
    return Looked(origin=new.origin, size=new.size, root=new.root, more=new.more, old=same)


def _goes_on(client: Client, known: Checkpoint, new: Checkpoint) -> bool:
    if known.size >= new.size:
        return known == new
    try:
        proof = client.audit_proofs_consistency(from_=known.size, to=new.size)
        hashes = [bytes.fromhex(one) for one in proof.hashes]
    except ValueError:
        return False
    except RequestError as error:
        if error.code != "link.answer":
            raise
        # whoever has no proof may answer anything else in its place
        return False
    return proves_consistency(
        hashes, old=known.size, old_head=known.root, new=new.size, new_head=new.root
    )
