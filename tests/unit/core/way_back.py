"""A device that is led back, and those who may lead it: what the grant's tests act on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from tests.unit.core.repo import DAY, NOW, Repo, release, signer

from tidegate.core.director import check_assignment, check_fallback, open_assignment, resolve_target
from tidegate.core.errors import TidegateError
from tidegate.core.grant import (
    GRANT_TYPE,
    Cohort,
    GrantBody,
    Holder,
    Leaving,
    Resume,
    Return,
    check_grant,
    highest_counter,
    open_grant,
)
from tidegate.core.hardware import Hardware, HardwareRange
from tidegate.core.keys import Signer, add_signature, sign_document
from tidegate.core.merkle import levels, prove
from tidegate.core.metadata import SignedTarget
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    AssignedTarget,
    AssignmentBody,
    Envelope,
    GrantUse,
    RepoBinding,
    SlotState,
)
from tidegate.core.release import ReleaseTarget, Running, refusal

BAD, OLD = release(118, fallback_to=()), release(117)
INCIDENT = (signer("incident 0"), signer("incident 1"))
NONCE, KEY = "ab" * 16, "11" * 32
COHORT = [f"dev-{number}" for number in range(1, 12)]
LEVELS = levels(COHORT)
JOINED = b"".join(LEVELS)


def proof(device_id: str) -> Any:
    return prove(lambda offset, count: JOINED[offset : offset + count], len(COHORT), device_id)


def returned(one: SignedTarget, **changes: object) -> Return:
    made = Return(
        path=one.path,
        length=one.length,
        sha256=one.sha256,
        release_counter=one.release.release_counter,
        security_version=one.release.security_version,
    )
    return msgspec.structs.replace(made, **changes)


GRANT = GrantBody(
    product="gw1",
    epoch=1,
    serial=7,
    incident="INC-2026-014",
    reason="boot loops",
    hardware=(HardwareRange("gw1", 3, 4),),
    cohort=Cohort(merkle_root=LEVELS[-1].hex(), count=len(COHORT)),
    leaving=(Leaving(release_counter=118, sha256=BAD.release.install.sha256),),
    to=(returned(OLD),),
    resume=Resume(min_counter=119),
    issued=NOW - 60,
    expires=NOW + 14 * DAY,
)


def grant(**changes: object) -> GrantBody:
    return msgspec.structs.replace(GRANT, **changes)


def signed(body: GrantBody = GRANT, *signers: Signer) -> Envelope:
    first, *rest = signers or INCIDENT
    envelope = sign_document(body, GRANT_TYPE, first)
    for one in rest:
        envelope = add_signature(envelope, one)
    return envelope


@dataclass
class Gw1:
    """One device as the policy sees it; `order` is what its agent does with an assignment, without any I/O."""

    repo: Repo = field(default_factory=lambda: Repo(releases=(OLD, BAD)))
    device_id: str = "dev-1"
    rev: int = 3
    channel: str = "stable"
    floor: int = 5
    runs: SignedTarget = BAD
    other: SlotState | None = None
    last: tuple[int, int] = (1, 9)
    used: GrantUse = field(default_factory=GrantUse)
    resume_min: int = 0
    now: int = NOW

    def assignment(self, target: SignedTarget, action: str, **changes: object) -> AssignmentBody:
        one = target.release
        named = AssignedTarget(
            path=target.path,
            length=target.length,
            sha256=target.sha256,
            product=one.product,
            release_counter=one.release_counter,
            security_version=one.security_version,
            hardware=one.hardware,
            channels=one.channels,
        )
        body = AssignmentBody(
            device_id=self.device_id,
            device_key=KEY,
            epoch=self.repo.epoch,
            seq=10,
            issued=NOW,
            expires=NOW + DAY,
            nonce=NONCE,
            action=action,  # type: ignore[arg-type]
            update="u1",
            target=named,
            repo=RepoBinding(root_min=1, timestamp_min=100, snapshot_min=100),
        )
        return msgspec.structs.replace(body, **changes)

    def install(self, target: SignedTarget, **changes: object) -> None:
        self.obey(self.assignment(target, "install", **changes))

    def back(
        self, envelope: Envelope | None, target: SignedTarget = OLD, **changes: object
    ) -> None:
        named = {"grant": envelope, "cohort_proof": proof(self.device_id), **changes}
        self.obey(self.assignment(target, "fallback", **named))

    def obey(self, body: AssignmentBody, key: Signer | None = None) -> None:
        """Take an order, or raise what it is refused for; nothing is changed by one that is refused."""
        trusted = self.repo.trusted()
        envelope = sign_document(body, ASSIGNMENT_TYPE, key or self.repo.director)
        opened = open_assignment(envelope, trusted.root)
        check_assignment(
            opened,
            trusted.root,
            device_id=self.device_id,
            device_key_sha256=KEY,
            nonce=NONCE,
            last=self.last,
            now=self.now,
        )
        found = resolve_target(opened, trusted)
        fallback = opened.action == "fallback"
        given = None
        if opened.grant is not None and fallback:
            given = open_grant(opened.grant, trusted.root)
            check_grant(
                given,
                found,
                root=trusted.root,
                holder=self.holder,
                update=opened.update or "",
                proof=opened.cohort_proof,
                published=highest_counter(trusted.roles["product/gw1"]),
                now=self.now,
            )
        elif fallback:
            nothing = SlotState(state="empty")
            check_fallback(
                found,
                running=self.runs.release,
                other=self.other or nothing,
                floor=self.floor,
                now=self.now,
            )
        self._rules(found.release, fallback=fallback)
        self._take(opened, found, given)

    def _rules(self, target: ReleaseTarget, *, fallback: bool) -> None:
        reason = refusal(
            target,
            hardware=Hardware("gw1", self.rev),
            channel=self.channel,
            running=self.running,
            floor=self.floor,
            agent="1.0.0",
            components={},
            fallback=fallback,
            resume_min=self.resume_min,
        )
        if reason is not None:
            raise TidegateError(reason)

    def _take(self, body: AssignmentBody, found: SignedTarget, given: GrantBody | None) -> None:
        self.last = (body.epoch, body.seq)
        self.runs = found
        if given is not None:
            update = body.update or ""
            self.used = GrantUse(epoch=given.epoch, serial=given.serial, update=update, done=True)
            self.resume_min = max(self.resume_min, given.resume.min_counter)

    @property
    def running(self) -> Running:
        one = self.runs.release
        return Running(
            release_counter=one.release_counter,
            security_version=one.security_version,
            sha256=one.install.sha256,
            version=one.version,
        )

    @property
    def holder(self) -> Holder:
        return Holder(
            device_id=self.device_id,
            product="gw1",
            hardware=Hardware("gw1", self.rev),
            running=self.running,
            release=self.runs.release,
            floor=self.floor,
            last=self.used,
        )


def code(act: Callable[[], object]) -> str:
    with pytest.raises(TidegateError) as caught:
        act()
    return caught.value.code
