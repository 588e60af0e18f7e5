"""Attachments and policy on the command line: what `release build`, `attach`, `check` and `fetch` share. Also cells of CSV files."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from tidegate.cli.output import Output, printable
from tidegate.client import Client, structs
from tidegate.core.accept import AcceptedProduct
from tidegate.core.amounts import format_size
from tidegate.core.errors import PublisherError, TidegateError
from tidegate.core.keys import public_key
from tidegate.core.metadata import SignedTarget
from tidegate.core.release import Attachment
from tidegate.core.supply import documents, policy
from tidegate.core.supply.documents import Document
from tidegate.core.supply.policy import IngestRule
from tidegate.publisher.attach import Attached

#: A cell that begins so is a formula to a spreadsheet.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def rules_of(given: Path | None, client: Client | None, out: Output) -> tuple[IngestRule, ...]:
    """Return what channels demand: from a `tidegate.toml`, else from the server, where one may be asked.

    Raises:
        ConfigError: the file is wrong. TidegateError: the server said something else than who may ask.
    """
    if given is not None:
        from tidegate.server.config import load

        return load(given, environ={}).ingest
    if client is None:
        return ()
    try:
        items = list(client.ingest_rules_list().items)
    except TidegateError as error:
        if error.code not in {"request.unauthenticated", "request.forbidden", "request.not_found"}:
            raise
        out.note(f"The server's rules for origins were not looked at: {error.detail}")
        return ()
    return tuple(_rule(one) for one in items)


def _rule(plain: structs.RuleFacts) -> IngestRule:
    return IngestRule(
        product=plain.product,
        channels=plain.channels,
        # what a newer server demands beside these it looks at itself
        needs=tuple(one for one in get_args(policy.Need) if one in plain.needs),
        builders=plain.builders,
        sources=plain.sources,
        signers=tuple(public_key(one.keytype, one.public) for one in plain.signers),
    )


def judge(
    rules: Sequence[IngestRule],
    accepted: AcceptedProduct,
    fresh: Sequence[SignedTarget],
    found: Mapping[str, Document],
) -> list[str]:
    """Hold new targets against the rules; the lines that say what was found.

    Args:
        rules: of the server.
        accepted: what the bundle brings.
        fresh: its targets whose bytes are in the bundle. Of others, published before in another release, only the kinds of their attachments are looked at.
        found: attachments by digest, read.

    Raises:
        PublisherError: `supply.policy`.
    """
    new = [one.release for one in fresh]
    kept = [one.release for one in accepted.kept]
    before = policy.channels_of(kept)
    policy.require(rules, new, found, kept)
    again = [one.release for one in accepted.new if one not in fresh]
    missing = [text for one in again for text in policy.unattached(rules, one, before)]
    if missing:
        raise PublisherError("supply.policy", "; ".join(missing)[:2000])
    guarded = sorted(
        {channel for rule in rules for one in new for channel in rule.guarded(one, before)}
    )
    lines = [f"  ok  {len(found)} attachments are what was signed"] if found else []
    if guarded:
        lines.append(f"  ok  its origin is proven as {', '.join(guarded)} demand")
    return lines


def attached_lines(found: Iterable[Attached]) -> list[str]:
    """Say what is attached, a line each."""
    return [f"  attached  {_line(one.signed)}{_content(one.document)}" for one in found]


def _line(one: Attachment) -> str:
    return f"{one.kind} {one.name}   {one.format}   {format_size(one.length)}"


def _content(document: Document) -> str:
    if document.sbom is not None:
        odd = f", {document.sbom.unread} package URLs unreadable" if document.sbom.unread else ""
        return f"   {len(document.sbom.parts)} parts{odd}"
    if document.vex is not None:
        return f"   {len(document.vex.statements)} statements"
    if document.claims:
        one = document.claims[0]
        return f"   by {printable(one.builder)} from {printable(one.source) or 'unknown source'}"
    return ""


def shown_lines(found: Iterable[structs.AttachmentFacts]) -> list[str]:
    """Say what a published release has attached, as the server tells it."""
    lines = []
    for one in found:
        notes = one.notes
        signed = "" if notes.signer else "; by none of the keys of the policy"
        more = {
            "sbom": f"{notes.parts} parts",
            "vex": f"{notes.statements} statements",
            "provenance": f"built by {notes.builder}{signed}",
        }.get(one.kind, "")
        text = f"{one.component}: {one.kind} {one.name}   {one.format}   {more}"
        lines.append(f"{'attached':<18} {printable(text).rstrip()}")
    return lines


def fetch(
    client: Client, release: str, target: SignedTarget, kinds: Sequence[str], folder: Path
) -> list[Path]:
    """Download attachments of a release and keep those that are what was signed. Nothing that differs is written.

    Args:
        client: the server; not trusted.
        release: its name.
        target: believed: from metadata that were verified.
        kinds: only these; () = every kind.
        folder: where the files go.

    Raises:
        PublisherError: `supply.attachment`: other bytes.
    """
    wanted = [one for one in target.release.attachments if not kinds or one.kind in kinds]
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for one in wanted:
        body = client.releases_attachments_show(release, one.sha256)
        digest = hashlib.sha256(body).hexdigest()
        if (len(body), digest) != (one.length, one.sha256):
            raise PublisherError(
                "supply.attachment",
                f"{one.name}: the server gave other bytes than were signed",
                hint="nothing was kept of it; ask whoever runs the server",
            )
        documents.check_attachment(one, body, digest)
        path = folder / f"{target.release.component}-{one.name}"
        if path in made:
            path = folder / f"{target.release.component}-{one.kind}-{one.sha256[:8]}-{one.name}"
        path.write_bytes(body)
        made.append(path)
    return made


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Write rows as CSV. A cell that a spreadsheet would take for a formula is made a text by an apostrophe before it."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(name, "")) for name in columns])
    return sink.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.lstrip(" ").startswith(_FORMULA) else text
