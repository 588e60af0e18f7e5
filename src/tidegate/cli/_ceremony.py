"""What the ceremonies of root, targets and products have in common: sign by words, merge, publish."""

import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from tidegate.cli.keys import open_signer
from tidegate.cli.output import Output, printable
from tidegate.client import Client, File
from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.keys import PublicKey, Signer
from tidegate.core.metadata import RoleKeys
from tidegate.publisher.bundle import write
from tidegate.publisher.ceremony import (
    Progress,
    SignatureFile,
    called,
    document_role,
    merge,
    read_signature,
    sign_draft,
    words_of,
    write_json,
)
from tidegate.publisher.keyfile import read_public
from tidegate.publisher.words import same_words

#: Documents that go to the server together.
WITH = click.option(
    "--with",
    "more",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A document that its new keys signed; all or none.",
)


def read_document(path: Path) -> bytes:
    """Read a document or draft.

    Raises:
        ConfigError: `config.unreadable`.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error


def optional(path: Path | None) -> bytes | None:
    """Read a document that need not be there."""
    return None if path is None else read_document(path)


def document_before(given: Path | None, beside: Path, name: str, version: int) -> bytes | None:
    """Return the document before this one: the file that was named, else the one that lies beside it under its usual name.

    Args:
        given: what the command line names.
        beside: the draft or document.
        name: `root`, `targets`, `product.gw1`.
        version: of the draft or document; before 1 there is nothing.

    Raises:
        ConfigError: `config.unreadable`: what was named is not there.
    """
    if given is not None:
        return read_document(given)
    usual = beside.with_name(f"{name}.{version - 1}.json")
    return read_document(usual) if version > 1 and usual.is_file() else None


def now() -> int:
    """Return the present, in unix seconds."""
    return int(time.time())


def date(at: int) -> str:
    """Write a day for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def moment(at: int) -> str:
    """Write a moment for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def sign_file(
    path: Path,
    key: Path,
    words: str | None,
    what: str,
    out: Output,
    holders: Sequence[RoleKeys] | None = None,
) -> None:
    """Sign a draft after its words were typed; write the signature beside it.

    The words are not shown here: typing them proves that whoever drafted it and whoever signs it hold the same file.

    Args:
        path: the draft.
        key: the signer's key file, or the public half of a key in a token.
        words: as typed; asked for where they are None.
        what: shown before anything is asked.
        out: where it is shown.
        holders: who has a say, where that is known: another key is refused at once.

    Raises:
        RequestError: `request.confirmation_needed`: other words. PublisherError: `sig.unknown_key`. ConfigError: `key.*`.
    """
    document = read_document(path)

    def make(signer: Signer, name: str) -> SignatureFile:
        return sign_draft(document, signer, name, now=now())

    sign_by_words(path, key, words, what, out, holders, expected=words_of(document), make=make)


def sign_by_words(
    path: Path,
    key: Path,
    words: str | None,
    what: str,
    out: Output,
    holders: Sequence[RoleKeys] | None,
    *,
    expected: str,
    make: Callable[[Signer, str], SignatureFile],
) -> None:
    """Do what `sign_file` does, for a draft of any kind.

    Args:
        path: as `sign_file`, and so are the next five.
        key: the signer's key file.
        words: as typed, or None.
        what: shown before anything is asked.
        out: where it is shown.
        holders: who has a say, where that is known.
        expected: the draft's words.
        make: signs it, with a key and under a name.

    Raises:
        RequestError, PublisherError, ConfigError: as `sign_file`.
    """
    public = read_public(key)
    if holders is not None and not _has_a_say(public.key, holders):
        raise PublisherError("sig.unknown_key", f"{public.name} has no say in this document")
    out.note(what)
    typed = words or _ask_words()
    if not same_words(typed, expected):
        raise RequestError(
            "request.confirmation_needed",
            "these are not this draft's words: you and whoever drafted it hold different files",
            hint="sign nothing; compare the two files, then begin again from one of them",
        )
    out.note("They are this draft's words.")
    made = make(open_signer(key), public.name)
    safe = re.sub(r"[^A-Za-z0-9._@+-]", "-", public.name)
    target = path.with_name(f"{path.name.removesuffix('.json')}.{safe}.sig")
    write_json(target, made)
    out.note("Signed. Hand this file back; it holds no secret.")
    out.made(str(target))


def _has_a_say(key: PublicKey, holders: Sequence[RoleKeys]) -> bool:
    return any(key.identity == one.identity for ring in holders for one in ring.keys)


def _ask_words() -> str:
    if not sys.stdin.isatty():
        raise RequestError(
            "request.confirmation_needed",
            "the draft's words are missing",
            hint='--words "…", as they were read to you',
        )
    return str(click.prompt("Type the words that are read to you; they are not shown", err=True))


def merge_files(
    path: Path, signatures: Sequence[Path], holders: list[RoleKeys]
) -> tuple[bytes, list[SignatureFile]]:
    """Put signature files into a draft and write it back."""
    found = [read_signature(one) for one in signatures]
    merged = merge(read_document(path), found, holders)
    path.write_bytes(merged)
    return merged, found


def complete_text(one: Progress) -> str:
    """Say that there are enough signatures."""
    return f"Complete: {one.threshold} of {one.threshold} needed."


def days_left(expires_at: int) -> int:
    """Return how many days there are, begun ones counted."""
    return -((now() - expires_at) // 86_400)


def progress_text(steps: Sequence[Progress], signed: Sequence[SignatureFile] = ()) -> str:
    """Write who signed, when by their own word, and who did not."""
    when = {one.keyid: one.signed_at for one in signed}
    everybody = [key for one in steps for key in (*one.signed, *one.unsigned)]
    width = max((len(printable(called(key))) for key in everybody), default=0)
    lines = []
    for at, one in enumerate(steps):
        if len(steps) > 1:
            whose = "by its own keys" if at == 0 else "by the keys of the one before"
            lines.append(f"{whose}: {one.threshold - one.missing} of {one.threshold} needed")
        for key in one.signed:
            told = f"   {moment(when[key.keyid])}" if when.get(key.keyid) else ""
            lines.append(f"  {printable(called(key)):<{width}}   good signature{told}")
        lines += [f"  {printable(called(key)):<{width}}   -" for key in one.unsigned]
    return "\n".join(lines)


def require_complete(steps: Sequence[Progress]) -> None:
    """Stop when signatures are missing.

    Raises:
        PublisherError: `meta.incomplete`.
    """
    for one in steps:
        if one.missing:
            names = ", ".join(called(key) for key in one.unsigned)
            raise PublisherError(
                "meta.incomplete", f"{one.missing} more of {names} must sign {one.role}"
            )


def publish_document(
    role: str, path: Path, client: Client, out: Output, more: Sequence[Path] = ()
) -> None:
    """Send root, targets or a product role to the server.

    Args:
        role: whose document it is.
        path: the document.
        client: the server.
        out: where it is told.
        more: documents that belong to it: one that changes keys is published together with those that the new keys signed, all or none.

    Raises:
        TidegateError: as the server says, with the codes that a device would give.
    """
    documents = {role: read_document(path), **dict(_with_role(one) for one in more)}
    try:
        if role in {"root", "targets"} and not more:
            send = client.root_create if role == "root" else client.targets_create
            send(documents[role])
        else:
            with tempfile.TemporaryDirectory() as folder:
                bundle = Path(folder) / "documents.bundle"
                write(bundle, documents, {})
                client.bundles_create(File(bundle))
    except PublisherError as error:
        if error.code in {"sig.threshold", "sig.unknown_key"} and not error.detail.startswith(role):
            hint = "its new keys must sign that too: publish both together, with --with FILE"
            raise PublisherError(error.code, error.detail, hint=hint) from error
        raise
    out.note(f"Published {', '.join(documents)}. Devices learn it at their next contact.")
    out.made(path.name)


def _with_role(path: Path) -> tuple[str, bytes]:
    """Return a document and the role that it is of, by what it says itself."""
    body = read_document(path)
    return document_role(body), body


def key_list(keys: Sequence[PublicKey]) -> list[str]:
    """Return short key ids."""
    return [key.keyid[:12] for key in keys]


def key_names(keys: Sequence[PublicKey]) -> list[str]:
    """Return what people call the keys."""
    return [called(key) for key in keys]
