"""What a channel demands of a release's origin: attachments that must be there, who may have built it, from what, and whose signature says so."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tidegate.core.errors import PublisherError
from tidegate.core.keys import PublicKey
from tidegate.core.release import ReleaseTarget
from tidegate.core.supply.documents import Document
from tidegate.core.supply.provenance import PAYLOAD_TYPE, Claim, split_source
from tidegate.core.supply.reading import clean

Need = Literal["sbom", "vex", "provenance", "notes", "licences"]
Pattern = Annotated[str, Meta(min_length=1, max_length=1000)]


class IngestRule(msgspec.Struct, frozen=True, kw_only=True):
    """Demands on releases that name one of `channels`. Naming builders, sources or signers demands provenance.

    Attributes:
        product: the product; `*` for every one.
        channels: those that are guarded.
        needs: kinds of attachment that must be there.
        builders: ids of builders, exact or with `*`.
        sources: `repository` or `repository@ref`; `*` stands for anything but a `/` in the repository, for anything in the ref.
        signers: public keys of which one must have signed the provenance.
    """

    product: str = "*"
    channels: tuple[str, ...] = ("stable",)
    needs: tuple[Need, ...] = ()
    builders: tuple[Pattern, ...] = ()
    sources: tuple[Pattern, ...] = ()
    signers: tuple[PublicKey, ...] = ()

    def guarded(self, target: ReleaseTarget, before: Mapping[str, frozenset[str]]) -> list[str]:
        """Return the channels of a release that fall under this rule.

        Those that its very image is in already (`before`, from `channels_of`) do not, so that no rule stands in a way back.
        """
        if self.product not in {"*", target.product}:
            return []
        there = before.get(target.install.sha256, frozenset())
        return [one for one in target.channels if one in self.channels and one not in there]


def channels_of(published: Iterable[ReleaseTarget]) -> dict[str, frozenset[str]]:
    """Return the channels in which each image is published, by its SHA-256."""
    found: dict[str, frozenset[str]] = {}
    for one in published:
        digest = one.install.sha256
        found[digest] = found.get(digest, frozenset()) | set(one.channels)
    return found


def require(
    rules: Iterable[IngestRule],
    targets: Sequence[ReleaseTarget],
    documents: Mapping[str, Document],
    published: Iterable[ReleaseTarget] = (),
) -> None:
    """Refuse a release that does not meet the rules of its channels.

    Args:
        rules: of the server.
        targets: new artifacts of one release or several.
        documents: their attachments by SHA-256, read.
        published: artifacts that are published already and stay so.

    Raises:
        PublisherError: `supply.policy`, naming everything that is missing.
    """
    rules = tuple(rules)
    before = channels_of(published)
    missing = list(
        dict.fromkeys(text for one in targets for text in findings(rules, one, documents, before))
    )
    if missing:
        raise PublisherError("supply.policy", "; ".join(missing)[:2000])


def findings(
    rules: Iterable[IngestRule],
    target: ReleaseTarget,
    documents: Mapping[str, Document],
    before: Mapping[str, frozenset[str]] | None = None,
) -> list[str]:
    """Return what keeps an artifact out of its channels, one sentence each; nothing where all is well. `before` is from `channels_of`."""
    found: list[str] = []
    mine = [documents[one.sha256] for one in target.attachments if one.sha256 in documents]
    for rule in rules:
        if channels := rule.guarded(target, before or {}):
            where = f"{target.name} {target.component} in {', '.join(channels)}"
            found += [f"{where}: {text}" for text in _missing(rule, target, mine)]
    return found


def unattached(
    rules: Iterable[IngestRule], target: ReleaseTarget, before: Mapping[str, frozenset[str]]
) -> list[str]:
    """Return what can be said against an artifact by the kinds of its attachments alone, where nobody has their bytes at hand."""
    there = {one.kind for one in target.attachments}
    found = []
    for rule in rules:
        wanted = dict.fromkeys(rule.needs)
        if rule.builders or rule.sources or rule.signers:
            wanted["provenance"] = None
        if channels := rule.guarded(target, before):
            where = f"{target.name} {target.component} in {', '.join(channels)}"
            found += [f"{where}: no {kind} is attached" for kind in wanted if kind not in there]
    return found


def _missing(rule: IngestRule, target: ReleaseTarget, documents: list[Document]) -> list[str]:
    found = []
    for need in rule.needs:
        there = [one for one in documents if one.kind == need]
        if not there:
            found.append(f"no {need} is attached")
        elif need == "sbom" and not any(one.sbom and one.sbom.parts for one in there):
            found.append("its sbom names no part")
    if rule.builders or rule.sources or rule.signers or "provenance" in rule.needs:
        claims = [claim for one in documents for claim in one.claims]
        if claims:
            found += _unproven(rule, target, claims)
        elif "provenance" not in rule.needs:
            found.append("no provenance is attached")
    return found


def _unproven(rule: IngestRule, target: ReleaseTarget, claims: list[Claim]) -> list[str]:
    """Say what is wrong with the claim that comes nearest; nothing, where one claim fulfils all of it."""
    speaking = [one for one in claims if target.install.sha256 in one.subjects]
    if not speaking:
        return [f"no provenance speaks of its image, sha256 {target.install.sha256[:16]}…"]
    return min((_objections(rule, one) for one in speaking), key=len)


def _objections(rule: IngestRule, claim: Claim) -> list[str]:
    found = []
    if rule.builders and not any(_matches(one, claim.builder) for one in rule.builders):
        found.append(f"builder {clean(claim.builder, 200)} is not allowed")
    if rule.sources and not any(_from(one, claim) for one in rule.sources):
        found.append(f"source {clean(claim.source, 200) or 'unknown'} is not allowed")
    if rule.signers and not signed_by(claim, rule.signers):
        found.append("its provenance is signed by none of the keys that are allowed")
    return found


def signed_by(claim: Claim, keys: Iterable[PublicKey]) -> PublicKey | None:
    """Return the first of the keys that made one of a claim's signatures; None for none. Key ids are hints that nobody believes."""
    kind = PAYLOAD_TYPE.encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(claim.payload), claim.payload)
    for key in keys:
        if any(key.verifies(one, message) for one in claim.signatures):
            return key
    return None


def _from(pattern: str, claim: Claim) -> bool:
    """Hold a source against a pattern: the repository segment by segment, the ref as a whole."""
    repository, ref = split_source(pattern)
    wanted, given = repository.split("/"), claim.repository.split("/")
    if len(wanted) != len(given) or not all(map(_matches, wanted, given)):
        return False
    return not ref or _matches(ref, claim.ref)


def _matches(pattern: str, text: str) -> bool:
    """Match a whole text; `*` is the only sign with a meaning. Takes linear steps, whatever the text is."""
    first, *others = pattern.split("*")
    if not others:
        return pattern == text
    *middle, last = others
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    if not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
