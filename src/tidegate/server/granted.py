"""Devices on a granted way back: whether the grant is good for one of them, by the function that the device itself asks, and the proof that it is meant.

The Merkle tree of a cohort is made once, when the grant is drafted (`server.grants`), and kept as a blob; a proof is read from it in some forty small reads.
"""

from typing import NamedTuple

import msgspec

from tidegate.core.errors import PublisherError
from tidegate.core.grant import (
    GrantBody,
    Holder,
    check_grant,
    highest_counter,
    live_targets,
    open_grant,
)
from tidegate.core.merkle import CohortProof, prove
from tidegate.core.metadata import RootDocument, SignedTarget, parse_targets, product_role
from tidegate.core.protocol import Envelope
from tidegate.server.metadata import Repository
from tidegate.server.nearby import Nearby
from tidegate.server.store import Connection, grant_rows, release_queries


class Opened(NamedTuple):
    """A grant that was accepted, with what it is held against."""

    envelope: Envelope
    body: GrantBody
    root: RootDocument
    live: dict[str, SignedTarget]
    published: int
    cohort_sha256: str | None


class Way(NamedTuple):
    """What a device is sent: where it goes back to, and by which leave."""

    found: SignedTarget
    grant: Envelope
    proof: CohortProof | None


class Ways:
    """Ways back by grant.

    Args:
        repository: what is published.
        blobs: where cohorts are read, inside of a transaction.
    """

    def __init__(self, repository: Repository, blobs: Nearby) -> None:
        self._repository = repository
        self._blobs = blobs
        self._opened: tuple[object, dict[int, Opened | str]] = (None, {})

    def find(
        self, conn: Connection, grant_id: int, holder: Holder, update: str, now: int
    ) -> Way | str:
        """Return the way back that a grant opens to a device, or the code with which the device would refuse it.

        Args:
            conn: of a unit of work.
            grant_id: row of the grant.
            holder: the device, as the server knows it.
            update: the update that it would be ordered under.
            now: unix seconds.
        """
        opened = self._open(conn, grant_id)
        if isinstance(opened, str):
            return opened
        code = "compat.hardware"
        proof = self.proof(opened, holder.device_id)
        for one in opened.body.to:
            found = opened.live.get(one.path)
            if found is None:
                code = "sig.director_mismatch"
                continue
            try:
                check_grant(
                    opened.body,
                    found,
                    root=opened.root,
                    holder=holder,
                    update=update,
                    proof=proof,
                    published=opened.published,
                    now=now,
                )
            except PublisherError as error:
                code = error.code
                continue
            if any(each.covers(holder.hardware) for each in found.release.hardware):
                return Way(found, opened.envelope, proof)
        return code

    def proof(self, opened: Opened, device_id: str) -> CohortProof | None:
        """Return the proof that a device is in a grant's cohort; None where there is none, or none is needed."""
        if opened.cohort_sha256 is None:
            return None
        blob = self._blobs.open(opened.cohort_sha256)
        if blob is None:
            return None
        try:
            return prove(blob.read_at, opened.body.cohort.count, device_id)
        finally:
            blob.close()

    def _open(self, conn: Connection, grant_id: int) -> Opened | str:
        """Open a grant, or say why it is none any more; remembered until something else is published."""
        view = self._repository.versions
        if self._opened[0] != view:
            self._opened = (view, {})
        known = self._opened[1]
        if grant_id not in known:
            try:
                known[grant_id] = self._read(conn, grant_id)
            except PublisherError as error:
                known[grant_id] = error.code
        return known[grant_id]

    def _read(self, conn: Connection, grant_id: int) -> Opened:
        row = grant_rows.by_id(conn, grant_id)
        root = self._repository.root(conn)
        if row is None or row["state"] != "accepted" or root is None:
            raise PublisherError("sig.unknown_key", "no such grant")
        envelope = msgspec.convert(row["envelope"], type=Envelope)
        role = product_role(str(row["product"]))
        document = release_queries.newest_document(conn, role)
        if document is None:
            raise PublisherError("sig.director_mismatch", f"no {role} is published")
        parsed = parse_targets(document.body, role)
        return Opened(
            envelope=envelope,
            body=open_grant(envelope, root),
            root=root,
            live=live_targets(parsed),
            published=highest_counter(parsed),
            cohort_sha256=row["cohort_sha256"],
        )
