"""`tidegate release`: build, sign and check offline; publish and look at what is published."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

from tidegate.cli import _ceremony as ceremony
from tidegate.cli._offline import bundle_offline
from tidegate.cli._people import show_lines
from tidegate.cli._published import is_recalled, previous_role, published_now, targets_now
from tidegate.cli._release_again import re_release_command
from tidegate.cli._sorting import with_sort
from tidegate.cli._supply import attached_lines, fetch, judge, rules_of, shown_lines
from tidegate.cli.client import with_client
from tidegate.cli.keys import open_signer
from tidegate.cli.output import Output, need_confirmation, printable, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.accept import alone
from tidegate.core.amounts import format_size, parse_duration
from tidegate.core.authority import Mandate
from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.metadata import (
    SignedTarget,
    keys_of,
    parse_targets,
    product_extra,
    product_role,
    signed_targets,
)
from tidegate.core.supply.documents import LIMITS
from tidegate.core.supply.policy import IngestRule
from tidegate.publisher.attach import attach, of_spec, read_attachments, unproven
from tidegate.publisher.bundle import Built, build, read
from tidegate.publisher.keyfile import read_public
from tidegate.publisher.manifest import read_release, source_date_epoch
from tidegate.publisher.pack import LAB_LEVEL, PUBLISH_LEVEL
from tidegate.publisher.restage import restage as restage_bundle
from tidegate.publisher.sending import send_bundle
from tidegate.publisher.sign import (
    Summary,
    bundle_progress,
    check_bundle,
    first_time,
    sign_bundle,
    summary,
)
from tidegate.publisher.staging import describe, read_staging

_FILE = click.Path(path_type=Path)
_ROOT = click.option("--root", type=_FILE, help="The root to believe (TIDEGATE_ROOT).")
_FIRST = click.option("--first", is_flag=True, help="Nothing is published yet; ask no server.")


@click.group("release")
def command() -> None:
    """Build, sign, check and publish releases.

    \b
    tidegate release build release.toml
    tidegate release publish gw1-1.0.0.bundle
    """


command.add_command(re_release_command)
command.add_command(bundle_offline)


@command.command("build")
@click.argument("file", type=_FILE, default="release.toml")
@click.option("--previous", type=_FILE, help="What is published now: a bundle or product role.")
@_FIRST
@_ROOT
@click.option("--out", "folder", type=_FILE, default=".", help="Folder for the bundle [.].")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--level", type=click.IntRange(1, 19), help="zstd level [19].")
@click.option("--fast", is_flag=True, help="Low compression, for laboratories.")
@click.option("--mandate", help="Signed staging: steps such as 1%@+0s,100%@+3d, or a file.")
@click.option("--sbom", type=_FILE, multiple=True, help="Attach CycloneDX or SPDX JSON.")
@click.option("--vex", type=_FILE, multiple=True, help="Attach OpenVEX or CSAF JSON.")
@click.option("--provenance", type=_FILE, multiple=True, help="Attach SLSA provenance in DSSE.")
@click.option("--withdraw", multiple=True, help="A published version to name no more.")
@with_client
@with_output
def build_release(
    file: Path,
    previous: Path | None,
    first: bool,
    root: Path | None,
    folder: Path,
    mandate: str | None,
    client: Client,
    out: Output,
    **packing: Any,
) -> None:
    """Pack a release into one bundle, unsigned.

    \b
    tidegate release build release.toml
    tidegate release build release.toml --previous gw1-1.0.0.bundle --fast
    tidegate release build release.toml --mandate "1%@2026-11-25T08:00Z,10%@+1d,100%@+3d"
    tidegate release build release.toml --sbom bom.cdx.json --provenance build.intoto.jsonl
    """
    spec = read_release(file)
    if mandate is not None:
        spec = replace(spec, mandate=read_staging(mandate))
    more = [(kind, path) for kind in ("sbom", "vex", "provenance") for path in packing[kind]]
    attached = of_spec(spec, more)
    made = build(
        spec,
        folder,
        previous=None if first else previous_role(spec.product, previous, root, client, out),
        now=source_date_epoch(ceremony.now()),
        level=packing["level"] or (LAB_LEVEL if packing["fast"] else PUBLISH_LEVEL),
        jobs=packing["jobs"],
        progress=out.progress("packing"),
        withdraw=packing["withdraw"],
        attached={
            name: [(one.signed, one.path) for one in found] for name, found in attached.items()
        },
    )
    found = summary(made.bundle)
    out.note("\n".join([_built(made), *_staging(found.mandates, made.targets[0])]))
    every = {one.signed.sha256: one for found in attached.values() for one in found}
    if every:
        out.note("\n".join(attached_lines(every.values())))
    for path in unproven(made.targets, {name: one.document for name, one in every.items()}):
        out.note(f"  warning   its provenance speaks of other images than {path}")
    out.note(f"Next: tidegate release sign {made.bundle} --key KEY")
    out.made(str(made.bundle), release=f"{spec.product}-{spec.version}")


@command.command("restage")
@click.argument("release")
@click.option("--mandate", help="The wider schedule: steps, or a file.")
@click.option("--end", is_flag=True, help="End the mandate: rings alone decide.")
@click.option("--previous", type=_FILE, help="What is published now: a bundle or product role.")
@click.option("--expires", default="180d", show_default=True, help="How long the role is good for.")
@_ROOT
@click.option("--out", "folder", type=_FILE, default=".", help="Folder for the bundle [.].")
@with_client
@with_output
def restage(
    release: str,
    mandate: str | None,
    end: bool,
    previous: Path | None,
    expires: str,
    root: Path | None,
    folder: Path,
    client: Client,
    out: Output,
) -> None:
    """Widen or end a published release's mandate, unsigned.

    \b
    tidegate release restage gw1-1.0.0 --mandate "100%@+1h"
    tidegate release restage gw1-1.0.0 --end
    """
    if (mandate is None) == (not end):
        raise ConfigError("config.missing", "either --mandate STEPS or --end")
    before = previous_role(release.rpartition("-")[0], previous, root, client, out)
    if before is None:
        raise PublisherError("release.malformed", f"{release} is not published")
    made = restage_bundle(
        before,
        release,
        read_staging(mandate) if mandate is not None else None,
        folder,
        now=source_date_epoch(ceremony.now()),
        expires_s=parse_duration(expires, "--expires"),
    )
    found = summary(made)
    mine = next(one for one in found.targets if one.release.name == release)
    said = _staging(found.mandates, mine) or ["  mandate   none: rings alone decide"]
    out.note("\n".join([f"{release} again, with another schedule.", *said]))
    out.note(f"Next: tidegate release sign {made} --key KEY")
    out.made(str(made))


@command.command("attach")
@click.argument("bundle", type=_FILE)
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--kind", type=click.Choice(list(LIMITS)), required=True)
@click.option("--component", help="Only to this one; without it, to every one of the release.")
@with_output
def attach_files(
    bundle: Path, files: tuple[Path, ...], kind: str, component: str | None, out: Output
) -> None:
    """Attach documents to a bundle that nobody has signed yet.

    \b
    tidegate release attach gw1-1.0.0.bundle bom.cdx.json --kind sbom
    tidegate release attach gw1-1.0.0.bundle rootfs.intoto.jsonl --kind provenance --component rootfs
    """
    added = attach(bundle, [(kind, one) for one in files], component)
    out.note("\n".join(attached_lines(added)))
    out.note(f"Next: tidegate release sign {bundle} --key KEY")
    out.made(str(bundle))


@command.command("sign")
@click.argument("bundle", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Your key file.")
@click.option("--version", "typed", help="The release's version, where nobody can be asked.")
@with_output
def sign(bundle: Path, key: Path, typed: str | None, out: Output) -> None:
    """Add one product signature to a bundle.

    \b
    tidegate release sign gw1-1.0.0.bundle --key rita.key
    """
    found = summary(bundle)
    name = read_public(key).name
    out.note(f"You are about to sign {_summary(found)}")
    if typed is None:
        need_confirmation(
            "To sign, type its version",
            found.version,
            yes=False,
            reason=None,
            hint="read what is above, then give --version, or answer on a terminal",
        )
    elif typed != found.version:
        raise RequestError(
            "request.confirmation_needed",
            f"this bundle brings {found.version}, not {typed}; nothing signed",
            hint="sign only what you have read: is it the right bundle?",
        )
    sign_bundle(bundle, open_signer(key))
    out.note(f"Signed by {name}. Where the product needs more signatures, pass the bundle on.")
    out.note(f"Next: tidegate release publish {bundle}")
    out.made(str(bundle))


@command.command("check")
@click.argument("bundle", type=_FILE)
@click.option("--targets", type=_FILE, help="The present targets; without it, the server's.")
@click.option("--previous", type=_FILE, help="What is published now: a bundle or product role.")
@click.option(
    "--policy", type=_FILE, help="A tidegate.toml with [[ingest]]; without it, the server's."
)
@_FIRST
@_ROOT
@with_client
@with_output
def check(
    bundle: Path,
    targets: Path | None,
    previous: Path | None,
    policy: Path | None,
    first: bool,
    root: Path | None,
    client: Client,
    out: Output,
) -> None:
    """Check all that a device would, without one, and all that the server demands of its origin.

    \b
    tidegate release check gw1-1.0.0.bundle
    tidegate release check gw1-1.0.0.bundle --targets targets.1.json --first
    """
    product = read(bundle).role.removeprefix("product/")
    body = targets_now(targets, root, client, out)
    before = None if first else previous_role(product, previous, root, client, out)
    _check(bundle, body, before, rules_of(policy, None if targets else client, out), out)


@command.command("publish")
@click.argument("bundle", type=_FILE)
@click.option("--dry-run", is_flag=True, help="Check it, publish nothing.")
@_ROOT
@with_client
@with_output
def publish(bundle: Path, dry_run: bool, root: Path | None, client: Client, out: Output) -> None:
    """Send a bundle; the server checks it as a device would.

    It goes in parts: after a cut, or when this command was stopped, it goes on where it was.

    \b
    tidegate release publish gw1-1.0.0.bundle
    """
    found = read(bundle)
    manifest = found.manifest
    if manifest.product and not found.product.signature_keyids:
        raise PublisherError(
            "meta.incomplete",
            f"{bundle.name} is not signed yet",
            hint=f"tidegate release sign {bundle} --key KEY",
        )
    if dry_run:
        product = found.role.removeprefix("product/")
        body = targets_now(None, root, client, out)
        before = previous_role(product, None, root, client, out)
        _check(bundle, body, before, rules_of(None, client, out), out)
        out.note("It would be accepted. Nothing was changed.")
        return
    send_bundle(client, bundle, progress=out.progress("uploading"))
    name = f"{manifest.product}-{manifest.version}" if manifest.product else bundle.name
    size = format_size(bundle.stat().st_size)
    if manifest.product and is_recalled(client, name):
        out.note(
            f"{name} is recalled: no device is ever offered it again.\n"
            f"Next: tidegate release show {name} says why; build a release with another version"
        )
    elif manifest.product:
        out.note(
            f"Published {name}, {size}. No device is offered it before a rollout.\n"
            "Next: tidegate rollout create rollout.toml --dry-run"
        )
    else:
        out.note(f"Published what {name} holds.")
    out.made(name)


@command.command("list")
@click.option("--product", help="Only this product.")
@with_sort(Client.releases_list)
@with_client
@with_list(structs.ReleaseFacts)
def list_releases(product: str | None, sort: Any, client: Client, out: Output) -> None:
    """List what is published.

    \b
    tidegate release list
    tidegate release list --product gw1 --json
    """
    columns = ["name", "counter", "security_version", "channels", "state"]
    out.table(
        "releases/1", client.releases_list(product=product, sort=sort), columns, empty="no releases"
    )


@command.command("show")
@click.argument("name")
@with_client
@with_output
def show(name: str, client: Client, out: Output) -> None:
    """Show one release.

    \b
    tidegate release show gw1-1.0.0
    """
    found = client.releases_show(name)
    lines = [
        f"{key:<18} {printable(str(value))}"
        for key, value in msgspec.to_builtins(found).items()
        if not isinstance(value, dict | tuple | list)
    ]
    lines += shown_lines(found.attachments)
    out.data("release/1", found, "\n".join(lines))


@command.command("fetch")
@click.argument("name")
@click.option("--kind", "kinds", type=click.Choice(list(LIMITS)), multiple=True)
@click.option("--out", "folder", type=_FILE, default=".", help="Folder for the files [.].")
@_ROOT
@with_client
@with_output
def fetch_attachments(
    name: str, kinds: tuple[str, ...], folder: Path, root: Path | None, client: Client, out: Output
) -> None:
    """Download what is attached to a release, verified against what its signers signed.

    \b
    tidegate release fetch gw1-1.0.0
    tidegate release fetch gw1-1.0.0 --kind sbom --out sboms
    """
    product = client.releases_show(name).product
    trusted = published_now(product, root, client, out)
    document = trusted.roles.get(product_role(product)) if trusted is not None else None
    targets = list(signed_targets(document).values()) if document is not None else []
    mine = [one for one in targets if one.release.name == name]
    if not mine:
        raise RequestError(
            "request.not_found",
            f"the product role does not name {name} any more; nothing proves it",
        )
    made = [path for one in mine for path in fetch(client, name, one, kinds, folder)]
    if not made:
        raise RequestError("request.not_found", f"nothing of that kind is attached to {name}")
    out.note("Each is what the signers of the product signed.")
    for path in made:
        out.made(str(path))


@command.command("recall")
@click.argument("name")
@click.option("--reason", required=True, help="Why; it stands in the record for ever.")
@click.option("--dry-run", is_flag=True, help="Say what it would end; change nothing.")
@with_client
@with_output
def recall(name: str, reason: str, dry_run: bool, client: Client, out: Output) -> None:
    """Never offer a release again. Cannot be undone; asks nothing.

    \b
    tidegate release recall gw1-1.1.0 --reason "bricks revision 5"
    """
    done = client.releases_recall(name, structs.Because(reason=reason), dry_run=dry_run or None)
    if dry_run:
        ended = {"halted": done.halted, "cancelled": done.cancelled}
        told = [f"{word:<10} {', '.join(names) or 'none'}" for word, names in ended.items()]
        show_lines(
            out, "recall/1", done, [*told, f"{'running':<10} {done.running:,} devices run it"]
        )
        out.note("Nothing was changed.")
        return
    out.note(f"{printable(done.text)}.")
    if done.way_back:
        out.note(f"Next: {done.way_back}")
    out.made(name, halted=done.halted, cancelled=done.cancelled, running=done.running)


# --- parts --------------------------------------------------------------------------------------------------------------


def _check(
    bundle: Path,
    targets: bytes,
    previous: bytes | None,
    rules: tuple[IngestRule, ...],
    out: Output,
) -> None:
    """Check a bundle as a device and its server would and print what was found."""
    product = read(bundle).role.removeprefix("product/")
    body = targets
    holders = keys_of(parse_targets(body), product_role(product))
    done = bundle_progress(bundle, holders)
    ceremony.require_complete([done])
    with tempfile.TemporaryDirectory(dir=bundle.parent, prefix=".check-") as folder:
        accepted = check_bundle(
            bundle,
            targets=parse_targets(body),
            previous=previous,
            now=ceremony.now(),
            folder=Path(folder),
        )
    fresh = first_time(accepted.new, previous, product_role(product))
    documents = read_attachments(read(bundle), fresh)
    origin = judge(rules, accepted, fresh, documents)
    value = {
        "ok": True,
        "attachments": sorted(documents),
        "new": [one.path for one in accepted.new],
        "withdrawn": list(accepted.gone),
        "signers": list(accepted.signers),
    }
    lines = [
        f"  ok  {len(done.signed)} of {holders.threshold} distinct keys signed",
        "  ok  it comes after everything that is published, and changes none of it",
        "  ok  every payload unpacks to the image that was signed",
        *origin,
        *(f"      {one.path}   counter {one.release.release_counter}" for one in accepted.new),
        *(
            line
            for one in accepted.new[:1] or accepted.kept
            for line in _staging(product_extra(accepted.document).mandates, one)
        ),
    ]
    if product in alone(parse_targets(body)):
        lines.append(f"  warning  ONE person can release {product} to every device")
    out.data("check/1", value, "\n".join(lines))


def _built(made: Built) -> str:
    release = made.targets[0].release
    order = f"counter {release.release_counter}   security_version {release.security_version}"
    lines = [f"{release.product} {release.version}   {order}   kind {release.kind}"]
    for one in made.targets:
        for number, part in enumerate(one.release.pieces):
            packed = made.packed[part.component]
            share = 100 * packed.length / packed.image_size
            lines.append(
                f"  {part.component:<9} {format_size(packed.image_size)} image"
                f"   full payload {format_size(packed.length)}   {share:.1f} %"
                + (f"   with {one.release.component}" if number else "")
            )
    lines += [_facts(made.targets[0]), "  ok        every payload was unpacked again"]
    return "\n".join(lines)


def _summary(found: Summary) -> str:
    new = found.targets[0]
    behind = [one for one in found.targets if one.release.version != found.version]
    follows = behind[0].release if behind else None
    role = product_role(found.product)
    before = f"{follows.version} (counter {follows.release_counter})" if follows else "nothing"
    others = ", ".join(sorted({one.release.version for one in behind})) or "nothing"
    mine = next((one for one in found.targets if one.release.version == found.version), new)
    staging = _staging(found.mandates, mine)
    title = f"{found.product} {found.version} (counter {new.release.release_counter}) as {role}."
    return "\n".join(
        [
            title,
            _facts(new),
            *staging,
            f"  follows   {before}",
            f"  keeps     {others}",
            f"  words     {found.words}",
        ]
    )


def _staging(mandates: tuple[Mandate, ...], one: SignedTarget) -> list[str]:
    """Return the lines that say how the signers stage a release; none when they do not."""
    mine = [each for each in mandates if each.counter == one.release.release_counter]
    said = [line for each in mine for line in describe(each)]
    return [f"  {'mandate' if not number else '':<8}  {line}" for number, line in enumerate(said)]


def _facts(one: SignedTarget) -> str:
    release = one.release
    reach = ", ".join(f"{each.model} {each.rev_min} to {each.rev_max}" for each in release.hardware)
    back = ", ".join(str(each.counter) for each in release.fallback_to) or "nowhere"
    return (
        f"  hardware  {reach}\n"
        f"  channels  {', '.join(release.channels)}\n"
        f"  contract  warm-up {release.health.warmup_s} s, {len(release.health.checks)} checks\n"
        f"  way back  {back}"
    )
