"""`tidegate product`: products, who signs for them, and their roles signed anew between releases."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli import _changes as changes
from tidegate.cli._anchor import explain_anchor, find_anchor
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_output
from tidegate.cli.targets import announce
from tidegate.client import Client
from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.keys import PublicKey
from tidegate.core.metadata import (
    RoleKeys,
    TargetsDocument,
    keys_of,
    parse_targets,
    product_role,
    products_of,
    signed_targets,
)
from tidegate.publisher.bundle import read
from tidegate.publisher.ceremony import (
    begin_product,
    begin_targets,
    called,
    check_product,
    progress,
    require_own_names,
    validity,
    words_of,
)
from tidegate.publisher.compare import compare_products
from tidegate.publisher.keyfile import read_public
from tidegate.publisher.publish import published

_FILE = click.Path(path_type=Path)
_OUT = click.option("--out", "target", type=_FILE, default="targets.draft.json", show_default=True)
_ALONE = click.option(
    "--one-signer",
    is_flag=True,
    help="One person may release to `stable`. For a shop of one; everything says so loudly.",
)
_TARGETS = click.option("--targets", type=_FILE, required=True, help="The present targets.")


@click.group("product")
def command() -> None:
    """Name products, say who signs for them, sign their roles anew.

    \b
    tidegate product add gw1 --key rita.pub.json --key sam.pub.json --needs 2
    tidegate product re-sign gw1
    """


# --- who signs: drafts of targets -------------------------------------------------------------------------------------------


@command.command("add")
@click.argument("name")
@click.option("--key", "keys", type=_FILE, multiple=True, required=True, help="A public key.")
@click.option("--needs", type=click.IntRange(1, 32), default=1, show_default=True)
@_ALONE
@click.option(
    "--previous", type=_FILE, help="The present targets; without it, these are the first."
)
@_OUT
@with_output
def add(
    name: str,
    keys: tuple[Path, ...],
    needs: int,
    one_signer: bool,
    previous: Path | None,
    target: Path,
    out: Output,
) -> None:
    """Draft targets that let these keys sign a product's releases.

    \b
    tidegate product add gw1 --key rita.pub.json --key sam.pub.json --needs 2
    tidegate product add gw2 --key rita.pub.json --previous targets.1.json
    """
    role = RoleKeys(tuple(read_public(one).key for one in keys), needs)
    before = ceremony.optional(previous)
    _draft(name, role, before, target, out, one_signer=one_signer)


@command.command("keys")
@click.argument("name")
@click.option("--add", "more", type=_FILE, multiple=True, help="A public key that comes.")
@click.option("--remove", "less", multiple=True, help="One that goes: its name, id or file.")
@click.option("--needs", type=click.IntRange(1, 32), help="How many must sign [as before].")
@_ALONE
@click.option("--previous", type=_FILE, required=True, help="The present targets.")
@_OUT
@with_output
def keys(
    name: str,
    more: tuple[Path, ...],
    less: tuple[str, ...],
    needs: int | None,
    one_signer: bool,
    previous: Path,
    target: Path,
    out: Output,
) -> None:
    """Draft targets that change who signs for a product.

    \b
    tidegate product keys gw1 --remove sam --add tom.pub.json --previous targets.1.json
    tidegate product keys gw1 --needs 2 --previous targets.1.json
    """
    before = ceremony.read_document(previous)
    old = _ring(parse_targets(before), name)
    going = {_find(old, one).identity for one in less}
    kept = [key for key in old.keys if key.identity not in going]
    role = RoleKeys(
        (*kept, *(read_public(one).key for one in more)), old.threshold if needs is None else needs
    )
    _draft(name, role, before, target, out, one_signer=one_signer)


@command.command("remove")
@click.argument("name")
@click.option("--previous", type=_FILE, required=True, help="The present targets.")
@_OUT
@with_output
def remove(name: str, previous: Path, target: Path, out: Output) -> None:
    """Draft targets in which nobody signs for a product any more.

    \b
    tidegate product remove gw0 --previous targets.3.json
    """
    before = ceremony.read_document(previous)
    _ring(parse_targets(before), name)
    draft = begin_targets({}, previous=before, now=ceremony.now(), without=[name])
    announce(draft, target, out, before)


# --- the product's own role ---------------------------------------------------------------------------------------------------


@command.command("re-sign")
@click.argument("name")
@click.option("--previous", type=_FILE, help="What is published now: a product role or bundle.")
@click.option("--root", type=_FILE, help="The root to believe (TIDEGATE_ROOT).")
@click.option("--expires", default="180d", show_default=True, help="How long it is good for.")
@click.option("--floor", "floors", multiple=True, help="MODEL=N: raise a model's security floor.")
@click.option("--withdraw", type=int, multiple=True, help="COUNTER of a release to take back.")
@click.option("--out", "target", type=_FILE, help="The draft [product.NAME.draft.json].")
@with_client
@with_output
def re_sign(
    name: str,
    previous: Path | None,
    root: Path | None,
    expires: str,
    floors: tuple[str, ...],
    withdraw: tuple[int, ...],
    target: Path | None,
    client: Client,
    out: Output,
) -> None:
    """Draft a product's role anew before it expires: the same releases, good for longer.

    A release that is withdrawn here is refused by devices, whatever a stolen server says; a recall is only the server's word.

    \b
    tidegate product re-sign gw1
    tidegate product re-sign gw1 --withdraw 117
    tidegate product re-sign gw1 --previous product.gw1.7.json --floor gw1=6
    """
    before = _role(name, previous, root, client, out)
    draft = begin_product(
        before,
        name,
        now=ceremony.now(),
        expires_s=validity(expires, "--expires"),
        floors=dict(_floor(one) for one in floors),
        withdraw=withdraw,
    )
    path = target or Path(f"product.{name}.draft.json")
    kept = path.with_name(
        f"product.{name}.{parse_targets(before, product_role(name)).version}.json"
    )
    kept.write_bytes(before)
    path.write_bytes(draft)
    words = words_of(draft)
    out.note(
        f"Draft of {_describe(draft, before, name)}\n\nWords   {words}\n"
        f"Next    tidegate product sign {path} --key KEY"
    )
    out.made(str(path), words=words)


@command.command("sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Your key file.")
@click.option("--previous", type=_FILE, help="The role before it [product.NAME.N.json beside it].")
@click.option("--words", help="The draft's words, where nobody can be asked.")
@with_output
def sign(file: Path, key: Path, previous: Path | None, words: str | None, out: Output) -> None:
    """Sign a product role with one key, after typing its words.

    \b
    tidegate product sign product.gw1.draft.json --key rita.key
    """
    body = ceremony.read_document(file)
    name = _product_of(body, file)
    before = _before(previous, file, body, name)
    what = f"You are about to sign {_describe(body, before, name)}\n"
    ceremony.sign_file(file, key, words, what, out)


@command.command("merge")
@click.argument("file", type=_FILE)
@click.argument("signatures", type=_FILE, nargs=-1, required=True)
@_TARGETS
@click.option("--previous", type=_FILE, help="The role before it [product.NAME.N.json beside it].")
@with_output
def merge(
    file: Path, signatures: tuple[Path, ...], targets: Path, previous: Path | None, out: Output
) -> None:
    """Put signatures into a product role; when there are enough, it is made.

    \b
    tidegate product merge product.gw1.draft.json product.gw1.draft.rita.sig --targets targets.1.json
    """
    body = ceremony.read_document(file)
    name, trusted = _product_of(body, file), parse_targets(ceremony.read_document(targets))
    before = _before(previous, file, body, name)
    holders = _ring(trusted, name)
    merged, found = ceremony.merge_files(file, signatures, [holders])
    steps = [progress(merged, holders)]
    out.note(ceremony.progress_text(steps, found))
    ceremony.require_complete(steps)
    document = parse_targets(merged, product_role(name))
    check_product(merged, name, targets=trusted, previous=before, now=ceremony.now())
    made = file.with_name(f"product.{name}.{document.version}.json")
    made.write_bytes(merged)
    out.note(ceremony.complete_text(steps[0]))
    out.made(str(made))


@command.command("check")
@click.argument("file", type=_FILE)
@_TARGETS
@click.option("--against", type=_FILE, help="The role before it [product.NAME.N.json beside it].")
@with_output
def check(file: Path, targets: Path, against: Path | None, out: Output) -> None:
    """Check a product role with the code that devices run.

    \b
    tidegate product check product.gw1.8.json --targets targets.1.json
    """
    body, now = ceremony.read_document(file), ceremony.now()
    name, trusted = _product_of(body, file), parse_targets(ceremony.read_document(targets))
    before = _before(against, file, body, name)
    accepted = check_product(body, name, targets=trusted, previous=before, now=now)
    days = ceremony.days_left(accepted.document.expires_at)
    value = {
        "product": name,
        "version": accepted.document.version,
        "ok": True,
        "days_left": days,
        "new": [one.path for one in accepted.new],
        "withdrawn": list(accepted.gone),
        "words": words_of(body),
    }
    ring = _ring(trusted, name)
    lines = [
        f"  ok  {len(accepted.signers)} of {len(ring.keys)} keys signed, {ring.threshold} needed",
        "  ok  accepted by the code that a device runs",
        f"  ok  expires in {days} days",
        f"{name} role {accepted.document.version} is ready. Words: {words_of(body)}",
    ]
    out.data("check/1", value, "\n".join(lines))


@command.command("publish")
@click.argument("file", type=_FILE)
@with_client
@with_output
def publish(file: Path, client: Client, out: Output) -> None:
    """Send a product role to the server, which checks it as a device would.

    \b
    tidegate product publish product.gw1.8.json
    """
    body = ceremony.read_document(file)
    role = product_role(_product_of(body, file))
    ceremony.publish_document(role, file, client, out)


# --- parts ----------------------------------------------------------------------------------------------------------------


def _draft(
    name: str,
    role: RoleKeys,
    before: bytes | None,
    target: Path,
    out: Output,
    *,
    one_signer: bool,
) -> None:
    if one_signer and role.threshold > 1:
        detail = f"{name} needs {role.threshold} signatures: one person alone releases nothing"
        raise RequestError("request.invalid", detail, hint="leave --one-signer out, or --needs 1")
    require_own_names(role.keys, name)
    draft = begin_targets(
        {name: role},
        previous=before,
        now=ceremony.now(),
        one_signer=[name] if one_signer else [],
    )
    announce(draft, target, out, before)


def _ring(document: TargetsDocument, name: str) -> RoleKeys:
    if name not in products_of(document):
        known = ", ".join(products_of(document)) or "none"
        raise RequestError("request.not_found", f"no product {name}; these targets know {known}")
    return keys_of(document, product_role(name))


def _find(ring: RoleKeys, text: str) -> PublicKey:
    """Find a key by its name, the start of its id, or its public file."""
    path = Path(text)
    if path.is_file():
        wanted = read_public(path).key.identity
        found = [key for key in ring.keys if key.identity == wanted]
    else:
        found = [
            k for k in ring.keys if k.name == text or (len(text) > 7 and k.keyid.startswith(text))
        ]
    if len(found) != 1:
        known = ", ".join(called(key) for key in ring.keys)
        raise RequestError("request.not_found", f"{text} is none of its keys: {known}")
    return found[0]


def _floor(text: str) -> tuple[str, int]:
    model, equals, number = text.partition("=")
    if not (model and equals and number.isascii() and number.isdigit()):
        raise RequestError("request.invalid", f"--floor {text}: MODEL=N is wanted")
    return model, int(number)


def _product_of(body: bytes, file: Path) -> str:
    """Return the product that a role is about: every target says it.

    Raises:
        PublisherError: `sig.malformed`: it names no release, so nothing says whose it is.
    """
    named = {one.release.product for one in signed_targets(parse_targets(body, "product")).values()}
    if len(named) != 1:
        raise PublisherError(
            "sig.malformed", f"{file.name} is no product role: {len(named)} products in it"
        )
    return named.pop()


def _before(given: Path | None, file: Path, body: bytes, name: str) -> bytes | None:
    version = parse_targets(body, product_role(name)).version
    return ceremony.document_before(given, file, f"product.{name}", version)


def _describe(body: bytes, before: bytes | None, name: str) -> str:
    role = product_role(name)
    document = parse_targets(body, role)
    old = parse_targets(before, role) if before is not None else None
    targets = sorted(
        signed_targets(document).values(), key=lambda one: (-one.release.release_counter, one.path)
    )
    until = ceremony.date(document.expires_at)
    lines = [f"{role} {document.version}, until {until}: which images devices may run.", ""]
    lines += [
        f"  {one.path:<32} counter {one.release.release_counter}"
        f"   {', '.join(one.release.channels)}"
        for one in targets
    ]
    lines.append("")
    if old is None and document.version > 1:
        lines.append("  warning  the role before it is not here, so what changes cannot be shown")
    else:
        lines += changes.change_lines(compare_products(document, old), role)
    return "\n".join(lines)


def _role(name: str, given: Path | None, root: Path | None, client: Client, out: Output) -> bytes:
    """Return the product role that is published now, from a file, or from the server, verified."""
    role = product_role(name)
    if given is not None:
        body = ceremony.read_document(given)
        found = body if body[:1] == b"{" else read(given).documents.get(role)
        if found is None:
            raise PublisherError("release.malformed", f"{given} holds nothing of {name}")
        return found
    anchor = find_anchor(root, client, out)
    try:
        trusted = published(client, anchor, name, now=ceremony.now()) if anchor else None
    except PublisherError as error:
        raise explain_anchor(error, client) from error
    document = trusted.roles.get(role) if trusted is not None else None
    if document is None:
        raise ConfigError("meta.no_root", f"{client.server} has published nothing of {name}")
    return document.body
