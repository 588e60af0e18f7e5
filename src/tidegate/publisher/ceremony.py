"""Ceremonies: root and targets are drafted, signed by their holders on machines of their own, merged, checked.

Only files pass between people. A draft is the unsigned document itself; its digest words let two people make sure by voice that they hold the same
one; a signature is a small file without secrets. What comes out is checked by the code that devices run (`core.accept`).
"""

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core.accept import (
    AcceptedProduct,
    accept_release,
    accept_root,
    accept_targets,
    check_roles,
    role_keys,
)
from tidegate.core.amounts import parse_duration
from tidegate.core.authority import ProductFloor, RootExtra
from tidegate.core.caps import ROLE_MAX
from tidegate.core.codec import screen
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.keys import PublicKey, Signer, public_key_from
from tidegate.core.mandate import with_mandates
from tidegate.core.metadata import (
    RoleKeys,
    RootDocument,
    TargetsDocument,
    attach,
    authorities,
    detached_signature,
    keys_of,
    make_product,
    make_root,
    make_targets,
    parse_root,
    parse_targets,
    product_extra,
    product_of,
    product_role,
    products_of,
    root_extra,
    signed_targets,
    strip_signatures,
    targets_extra,
)
from tidegate.core.verify import TrustedSet
from tidegate.publisher.keyfile import read_public
from tidegate.publisher.words import digest_words

DAY_S: Final = 86_400
#: Longest that a document may be good for: a key that nobody ever touches again is a key that nobody guards.
VALID_MAX_S: Final = 20 * 365 * DAY_S
ROOT_S: Final = 365 * 86_400
TARGETS_S: Final = 180 * 86_400
PRODUCT_S: Final = 180 * 86_400
DIRECTOR_MAX_S: Final = 7 * 86_400
INCIDENT_MAX_S: Final = 14 * 86_400
_ONLINE: Final = ("snapshot", "timestamp", "director", "audit")
_OFFLINE: Final = ("root", "targets", "incident")


class SignatureFile(msgspec.Struct, frozen=True, kw_only=True):
    """`….sig`: one holder's signature on a draft."""

    schema: Literal["tidegate.signature/1"] = "tidegate.signature/1"
    name: Annotated[str, Meta(max_length=64)]
    keyid: Annotated[str, Meta(max_length=128)]
    signature: Annotated[str, Meta(max_length=4096, pattern=r"^(?:[0-9a-f]{2})+$(?!\n)")]
    words: Annotated[str, Meta(max_length=200)]
    signed_at: int = 0


@dataclass(frozen=True)
class RootSpec:
    """`ceremony.toml`: who may sign what. `roles` holds root, targets, incident and the online roles."""

    tenant: str
    expires_s: int
    roles: Mapping[str, RoleKeys]
    incident_max_s: int = INCIDENT_MAX_S
    lab: bool = False
    strict_fallback: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a document is: who signed, who still may, how many are missing."""

    role: str
    version: int
    threshold: int
    signed: tuple[PublicKey, ...]
    unsigned: tuple[PublicKey, ...]

    @property
    def missing(self) -> int:
        """Return how many more distinct keys must sign."""
        return max(0, self.threshold - len({key.identity for key in self.signed}))


def read_ceremony(path: Path) -> RootSpec:
    """Read `ceremony.toml` and the public keys that it names.

    Raises:
        ConfigError: `config.*`, `key.*`, naming file and key.
    """
    try:
        plain = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError("config.invalid", f"{path.name}: {error}") from error
    roles = {name: _ring(plain.get(name), path, name) for name in _OFFLINE}
    if "online" not in plain:
        raise ConfigError("config.missing", f'{path.name}: online = "online.pub.json"')
    for name, key in read_online(path.parent / str(plain["online"])).items():
        roles[name] = RoleKeys((key,), 1)
    incident = plain.get("incident", {})
    grant = incident.get("grant_max", "14d") if isinstance(incident, dict) else "14d"
    return RootSpec(
        tenant=str(plain.get("tenant", "default")),
        expires_s=validity(plain.get("expires", "365d"), f"{path.name}: expires"),
        roles=roles,
        incident_max_s=parse_duration(grant, f"{path.name}: grant_max"),
        strict_fallback=_strict(incident, path),
    )


def _strict(incident: object, path: Path) -> bool:
    found = incident.get("strict", False) if isinstance(incident, dict) else False
    if not isinstance(found, bool):
        raise ConfigError("config.invalid", f"{path.name}: [incident] strict is true or false")
    return found


def _ring(plain: object, path: Path, name: str) -> RoleKeys:
    if not isinstance(plain, dict) or not isinstance(plain.get("keys"), list):
        raise ConfigError("config.missing", f"{path.name}: [{name}] with needs and keys")
    needs = plain.get("needs", 1)
    if type(needs) is not int or needs < 1:
        raise ConfigError("config.invalid", f"{path.name}: [{name}] needs is a whole number")
    keys = tuple(read_public(path.parent / str(one)).key for one in plain["keys"])
    require_own_names(keys, f"{path.name}: [{name}]")
    return RoleKeys(keys, needs)


def validity(text: object, where: str) -> int:
    """Read how long a document is to be good for; seconds.

    Raises:
        ConfigError: `config.invalid`: no duration, or not between a day and twenty years.
    """
    found = parse_duration(text, where)
    if not DAY_S <= found <= VALID_MAX_S:
        raise ConfigError("config.invalid", f"{where}: between 1d and 7300d")
    return found


def require_own_names(keys: Sequence[PublicKey], where: str) -> None:
    """Refuse two different keys of one role under one name: nobody could tell whose signature is meant.

    Raises:
        ConfigError: `config.invalid`.
    """
    names: dict[str, str] = {}
    for key in keys:
        if key.name and names.setdefault(key.name, key.identity) != key.identity:
            raise ConfigError("config.invalid", f"{where}: two keys are called {key.name}")


def read_online(path: Path) -> dict[str, PublicKey]:
    """Read the public halves of a server's online keys (`online.pub.json`, or the answer of `/api/v1/online-keys`).

    Raises:
        ConfigError: `key.missing` or `key.malformed`.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError("key.missing", f"{path}: {error.strerror}") from error
    try:
        return online_keys(screen(body, ROLE_MAX))
    except PublisherError as error:
        raise ConfigError("key.malformed", f"{path}: {error.detail}") from error


def online_keys(plain: Mapping[str, Any]) -> dict[str, PublicKey]:
    """Take in the public halves of a server's online keys, by role.

    Raises:
        PublisherError: `sig.malformed`: a role is missing, or its key cannot be read.
    """
    inner = plain.get("keys", plain)
    missing = [name for name in _ONLINE if not isinstance(inner.get(name), Mapping)]
    if missing:
        raise PublisherError("sig.malformed", f"no online key for {', '.join(missing)}")
    return {name: public_key_from(inner[name]).called("server") for name in _ONLINE}


# --- drafts -------------------------------------------------------------------------------------------------------------


def begin_root(
    spec: RootSpec, *, previous: bytes | None, now: int, raise_epoch: bool = False
) -> bytes:
    """Draft the first root, or the one after `previous`.

    Args:
        spec: who may sign what.
        previous: the present root; None for the first.
        now: unix seconds.
        raise_epoch: restart the director's numbering: after a theft of the server.

    Raises:
        PublisherError: `key.duplicate`, `key.trust_levels`, `sig.threshold`; `sig.unknown_key`, `sig.threshold`: `previous` is not signed by its own keys.
    """
    check_roles(spec.roles)
    before = _proven(previous, now) if previous is not None else None
    epoch = root_extra(before).authorities.epoch + raise_epoch if before is not None else 1
    extra = RootExtra(
        tenant=spec.tenant,
        lab=spec.lab,
        strict_fallback=spec.strict_fallback,
        authorities=authorities(
            epoch=epoch,
            director=spec.roles["director"],
            incident=spec.roles["incident"],
            audit=spec.roles["audit"],
            director_max_s=DIRECTOR_MAX_S,
            incident_max_s=spec.incident_max_s,
        ),
    )
    return make_root(
        version=before.version + 1 if before is not None else 1,
        expires_at=now + spec.expires_s,
        roles=spec.roles,
        extra=extra,
    )


def _proven(previous: bytes, now: int) -> RootDocument:
    """Return a root that its own keys signed: a draft after something else would show a false difference."""
    return TrustedSet(previous, now=now).root


def begin_targets(
    products: Mapping[str, RoleKeys],
    *,
    previous: bytes | None,
    now: int,
    expires_s: int = TARGETS_S,
    one_signer: Collection[str] = (),
    without: Collection[str] = (),
) -> bytes:
    """Draft a targets role that delegates `products`, besides those of `previous` that are not named anew.

    Args:
        products: new products, and those whose keys change.
        previous: the present targets; None for the first.
        now: unix seconds.
        expires_s: how long they are good for.
        one_signer: products that one person may release to `stable`. One of before stays excused until two of its keys must sign.
        without: products that nobody signs for any more.

    Raises:
        PublisherError: `sig.malformed`; `sig.threshold`, `key.duplicate`: a product's keys cannot meet it.
    """
    before = parse_targets(previous) if previous is not None else None
    kept = (
        {name: keys_of(before, product_role(name)) for name in products_of(before)}
        if before is not None
        else {}
    )
    rings = {name: role for name, role in {**kept, **products}.items() if name not in without}
    check_roles({product_role(name): role for name, role in products.items()})
    excused = {*one_signer, *(targets_extra(before).one_signer if before is not None else ())}
    return make_targets(
        version=before.version + 1 if before is not None else 1,
        expires_at=now + expires_s,
        products=rings,
        one_signer={name for name in excused if name in rings and rings[name].threshold < 2},
    )


def begin_product(
    previous: bytes,
    product: str,
    *,
    now: int,
    expires_s: int = PRODUCT_S,
    floors: Mapping[str, int] | None = None,
    withdraw: Collection[int] = (),
) -> bytes:
    """Draft a product role anew: the same releases, good for longer; `floors` raises the security floor of models, `withdraw` takes releases back.

    A recall is the server's word, and a stolen server forgets it. What is withdrawn here is refused by the devices themselves.

    Args:
        previous: the product role that is published now.
        product: its product.
        now: unix seconds.
        expires_s: how long it is good for.
        floors: by model, the lowest `security_version` that devices may keep to.
        withdraw: counters of releases that nobody shall install any more.

    Raises:
        PublisherError: `sig.malformed`. ConfigError: `config.invalid`: a floor would fall, or no release has such a counter.
    """
    before = parse_targets(previous, product_role(product))
    extra = product_extra(before)
    found = {one.model: one.security_floor for one in extra.product_floor}
    for model, floor in (floors or {}).items():
        if floor < found.get(model, 0):
            raise ConfigError(
                "config.invalid", f"{model}: the floor is {found[model]}, and a floor never falls"
            )
        found[model] = floor
    kept = tuple(ProductFloor(model=m, security_floor=floor) for m, floor in sorted(found.items()))
    targets = signed_targets(before).values()
    unknown = set(withdraw) - {one.release.release_counter for one in targets}
    if unknown:
        raise ConfigError("config.invalid", f"{product}: no release has counter {min(unknown)}")
    extra = with_mandates(extra, [one for one in extra.mandates if one.counter not in withdraw])
    return make_product(
        version=before.version + 1,
        expires_at=now + expires_s,
        targets=[one for one in targets if one.release.release_counter not in withdraw],
        extra=msgspec.structs.replace(
            extra,
            product_floor=kept,
            withdrawn=tuple(sorted({*extra.withdrawn, *withdraw})),
        ),
    )


def words_of(document: bytes) -> str:
    """Return the words of a document; signatures do not change them.

    Raises:
        PublisherError: `sig.malformed`.
    """
    return digest_words(strip_signatures(document))


def describe_root(document: RootDocument) -> list[tuple[str, RoleKeys]]:
    """Return the lines of a root for people: who may sign what.

    Raises:
        PublisherError: `sig.malformed`.
    """
    return list(role_keys(document).items())


def document_role(body: bytes) -> str:
    """Return the role that a document (unverified) is of, by what it says itself: `root`, `targets` or `product/NAME`.

    Raises:
        PublisherError: `sig.malformed`: no document that people sign.
    """
    kind = screen(body, ROLE_MAX).get("signed", {})
    if isinstance(kind, dict) and kind.get("_type") == "root":
        return parse_root(body).role
    document = parse_targets(body)
    if not document.signed.targets:
        return "targets"
    return product_role(product_of(next(iter(document.signed.targets))))


def called(key: PublicKey) -> str:
    """Return what people call a key: its name, else the start of its id."""
    return key.name or key.keyid[:12]


# --- signatures -----------------------------------------------------------------------------------------------------------


def sign_draft(document: bytes, signer: Signer, name: str, *, now: int) -> SignatureFile:
    """Sign a draft; the result holds no secret. Whether the key has a say is told at `merge`.

    Raises:
        PublisherError: `sig.malformed`.
    """
    return SignatureFile(
        name=name,
        keyid=signer.public.keyid,
        signature=detached_signature(document, signer),
        words=words_of(document),
        signed_at=now,
    )


def read_signature(path: Path) -> SignatureFile:
    """Read a `.sig` file.

    Raises:
        ConfigError: `config.unreadable` or `config.invalid`.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=SignatureFile)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.invalid", f"{path}: {error}") from error


def write_json(path: Path, value: object) -> None:
    """Write a small file that people carry."""
    path.write_text(json.dumps(msgspec.to_builtins(value), indent=1) + "\n")


def merge(document: bytes, signatures: list[SignatureFile], holders: list[RoleKeys]) -> bytes:
    """Put signatures into a document; each must be good, on this very document, by one of its holders.

    Args:
        document: the draft, or one that was merged before.
        signatures: from `read_signature` (untrusted).
        holders: who may sign: for a root, its own root keys and those of the root before it.

    Raises:
        PublisherError: `sig.mix_and_match`: a signature on another document; `sig.unknown_key`: by somebody who has no say; `sig.threshold`: not good.
    """
    words = words_of(document)
    message = _parse(document).inner.signed_bytes
    known = {key.keyid: key for role in holders for key in role.keys}
    for one in signatures:
        if one.words != words:
            raise PublisherError("sig.mix_and_match", f"{one.name} signed another document")
        if one.keyid not in known:
            raise PublisherError("sig.unknown_key", f"{one.name} has no say in this document")
        if not known[one.keyid].verifies(bytes.fromhex(one.signature), message):
            raise PublisherError("sig.threshold", f"{one.name}: the signature is not good")
        document = attach(document, one.keyid, one.signature)
    return document


def progress(document: bytes, holders: RoleKeys) -> Progress:
    """Say who signed a document, verified.

    Args:
        document: root, targets or a product role.
        holders: who may sign, and how many must.
    """
    parsed = _parse(document)
    message, signatures = parsed.inner.signed_bytes, parsed.inner.signatures
    signed = tuple(
        key
        for key in holders.keys
        if key.keyid in signatures and _good(key, signatures[key.keyid].signature, message)
    )
    unsigned = tuple(key for key in holders.keys if key not in signed)
    return Progress(parsed.role, parsed.version, holders.threshold, signed, unsigned)


def _good(key: PublicKey, signature: str, message: bytes) -> bool:
    """Say whether a signature (untrusted text) is a key's own."""
    try:
        return key.verifies(bytes.fromhex(signature), message)
    except ValueError:
        return False


def root_progress(document: bytes, previous: bytes | None) -> list[Progress]:
    """Say how far a root is: by its own threshold, and by the one before it."""
    found = [progress(document, keys_of(parse_root(document), "root"))]
    if previous is not None:
        found.append(progress(document, keys_of(parse_root(previous), "root")))
    return found


def check_root(document: bytes, *, previous: bytes | None, now: int) -> RootDocument:
    """Check a root as whoever publishes does.

    Raises:
        PublisherError: `meta.incomplete`: signatures are missing; else as `core.accept.accept_root`.
    """
    for one in root_progress(document, previous):
        _require_complete(one)
    return accept_root(document, previous=previous, now=now)


def check_targets(
    document: bytes, *, root: bytes, previous: bytes | None, now: int
) -> TargetsDocument:
    """Check a targets role as whoever publishes does.

    Raises:
        PublisherError: `meta.incomplete`; else as `core.accept.accept_targets`.
    """
    trusted = parse_root(root)
    _require_complete(progress(document, keys_of(trusted, "targets")))
    return accept_targets(document, root=trusted, previous=previous, now=now)


def check_product(
    document: bytes, product: str, *, targets: TargetsDocument, previous: bytes | None, now: int
) -> AcceptedProduct:
    """Check a product role as whoever publishes does.

    Raises:
        PublisherError: `meta.incomplete`; else as `core.accept.accept_release`.
    """
    _require_complete(progress(document, keys_of(targets, product_role(product))))
    return accept_release(document, product=product, targets=targets, previous=previous, now=now)


def _require_complete(one: Progress) -> None:
    if one.missing:
        names = ", ".join(called(key) for key in one.unsigned)
        raise PublisherError(
            "meta.incomplete",
            f"{one.role} {one.version}: {one.threshold - one.missing} of {one.threshold} signed;"
            f" {one.missing} more of {names}",
        )


def _parse(document: bytes) -> RootDocument | TargetsDocument:
    kind = screen(document, ROLE_MAX).get("signed", {})
    if isinstance(kind, dict) and kind.get("_type") == "root":
        return parse_root(document)
    return parse_targets(document)
