"""Provenance: in-toto statements (v0.1, v1) with SLSA provenance (v0.2, v1) in DSSE envelopes, one or several lines of them.

Reading says what is claimed; who claims it is decided by the keys that a policy names (`supply.policy`). Sources: in-toto attestation framework, DSSE 1.0.2,
SLSA provenance v0.2 and v1.0.
"""

import base64
import binascii
import re
from typing import Any, Final

import msgspec

from tidegate.core.errors import PublisherError
from tidegate.core.supply.reading import (
    malformed,
    object_of,
    objects_of,
    read_object,
    text_of,
)

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENTS: Final = ("https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1")
SLSA: Final = {"https://slsa.dev/provenance/v0.2": "slsa-0.2", "https://slsa.dev/provenance/v1": "slsa-1"}  # fmt: skip
ENVELOPES_MAX: Final = 64
SUBJECTS_MAX: Final = 10_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_AUTHORITY: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*/")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one statement claims, and the signatures below it.

    Attributes:
        format: `slsa-0.2` or `slsa-1`.
        builder: id of the builder.
        repository: where the source came from, without `git+` and `.git`; empty where the statement does not say.
        ref: branch, tag or commit that was asked for; empty where it does not say.
        subjects: SHA-256 of what was built.
        payload: the signed bytes.
        signatures: as they came; key ids are hints.
    """

    format: str
    builder: str
    repository: str
    ref: str
    subjects: tuple[str, ...]
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def source(self) -> str:
        """Return repository and ref on one line; empty without a repository."""
        if not self.repository:
            return ""
        return f"{self.repository}@{self.ref}" if self.ref else self.repository


def read(body: bytes, limit: int) -> tuple[Claim, ...]:
    """Read an attestation file (untrusted): one DSSE envelope, or one a line.

    Raises:
        PublisherError: `supply.malformed`, `supply.unknown_format`, `supply.too_large`. Signatures are not verified here.
    """
    if len(body) > limit:
        raise PublisherError("supply.too_large", f"{len(body)} bytes; at most {limit} are taken")
    lines = [line for line in body.splitlines() if line.strip()]
    one_a_line = len(lines) > 1 and all(line.strip().endswith(b"}") for line in lines[:2])
    one_a_line = one_a_line and lines[0].lstrip().startswith(b"{") and lines[1].lstrip().startswith(b"{")  # fmt: skip
    if len(lines) > ENVELOPES_MAX and one_a_line:
        raise PublisherError("supply.too_large", f"more than {ENVELOPES_MAX} envelopes")
    envelopes = lines if one_a_line else [body]
    return tuple(_claim(read_object(one, limit), limit) for one in envelopes)


def is_envelope(plain: dict[str, Any]) -> bool:
    """Say whether a document claims to be a DSSE envelope."""
    return "payloadType" in plain and "payload" in plain


def _claim(envelope: dict[str, Any], limit: int) -> Claim:
    envelope = object_of(envelope, "dsseEnvelope", "Sigstore bundle") or envelope
    if not is_envelope(envelope):
        what = " (a bare statement, unsigned?)" if "predicateType" in envelope else ""
        raise PublisherError("supply.unknown_format", f"not a DSSE envelope{what}")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise PublisherError("supply.unknown_format", f"payloadType is not {PAYLOAD_TYPE}")
    payload = _bytes(envelope.get("payload"), "payload")
    signatures = tuple(
        _bytes(one.get("sig"), "sig") for one in objects_of(envelope, "signatures", "DSSE")
    )
    if not signatures:
        raise malformed("a DSSE envelope without signatures")
    statement = read_object(payload, limit)
    if statement.get("_type") not in STATEMENTS:
        raise PublisherError("supply.unknown_format", "not an in-toto statement v0.1 or v1")
    kind = SLSA.get(text_of(statement, "predicateType", "statement"))
    if kind is None:
        raise PublisherError("supply.unknown_format", f"predicateType is none of {', '.join(SLSA)}")
    predicate = object_of(statement, "predicate", "statement")
    builder, repository, ref = (_slsa1 if kind == "slsa-1" else _slsa02)(predicate)
    repository, own_ref = split_source(repository)
    return Claim(
        format=kind,
        builder=builder,
        repository=repository,
        ref=ref or own_ref,
        subjects=_subjects(statement),
        payload=payload,
        signatures=signatures,
    )


def _bytes(value: object, what: str) -> bytes:
    """Decode base64 of either alphabet, as DSSE demands of verifiers."""
    if not isinstance(value, str):
        raise malformed(f"DSSE: {what} is not a text")
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise malformed(f"DSSE: {what} is not base64") from error


def _subjects(statement: dict[str, Any]) -> tuple[str, ...]:
    found: list[str] = []
    for one in objects_of(statement, "subject", "statement"):
        digest = object_of(one, "digest", "subject").get("sha256")
        if digest is None:
            continue
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest.lower()):
            raise malformed("a subject whose sha256 is none")
        found.append(digest.lower())
        if len(found) > SUBJECTS_MAX:
            raise PublisherError("supply.too_large", f"more than {SUBJECTS_MAX} subjects")
    if not found:
        raise malformed("a statement without a subject that has a sha256")
    return tuple(found)


def _slsa02(predicate: dict[str, Any]) -> tuple[str, str, str]:
    builder = text_of(object_of(predicate, "builder", "predicate"), "id", "builder")
    invocation = object_of(predicate, "invocation", "predicate")
    source = object_of(invocation, "configSource", "invocation")
    uri = text_of(source, "uri", "configSource", default="")
    return builder, uri or _only_git(predicate, "materials"), ""


def _slsa1(predicate: dict[str, Any]) -> tuple[str, str, str]:
    """Find builder and source.

    The source is the one that the build was *asked* for, or the only repository in it: any dependency would match a pattern too easily.
    """
    run = object_of(predicate, "runDetails", "predicate")
    builder = text_of(object_of(run, "builder", "runDetails"), "id", "builder")
    definition = object_of(predicate, "buildDefinition", "predicate")
    asked = object_of(definition, "externalParameters", "buildDefinition")
    if "repository" in asked:
        return (
            builder,
            text_of(asked, "repository", "externalParameters"),
            text_of(asked, "ref", "externalParameters", default=""),
        )
    for name in ("workflow", "sourceToBuild", "configSource", "source"):
        given = asked.get(name)
        if isinstance(given, str):
            return builder, text_of(asked, name, "externalParameters"), ""
        if isinstance(given, dict):
            key = "repository" if "repository" in given else "uri"
            return (
                builder,
                text_of(given, key, name, default=""),
                text_of(given, "ref", name, default=""),
            )
    return builder, _only_git(definition, "resolvedDependencies"), ""


def _only_git(plain: dict[str, Any], key: str) -> str:
    """Return the one repository among what went into a build; empty where there are several: nobody says which of them was built."""
    found = [text_of(one, "uri", key, default="") for one in objects_of(plain, key, "predicate")]
    found = [one for one in found if one.startswith("git+")]
    return found[0] if len(found) == 1 else ""


def split_source(text: str) -> tuple[str, str]:
    """Split `git+https://host/team/project.git@refs/tags/v1` into repository and ref, without `git+` and `.git`.

    The ref begins at the first `@` behind the host: a later one cannot move the border.
    """
    text = text.removeprefix("git+")
    host = _AUTHORITY.match(text)
    start = host.end() if host else 0
    path, _, ref = text[start:].partition("@")
    return text[:start] + path.removesuffix("/").removesuffix(".git"), ref
