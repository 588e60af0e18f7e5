"""Every message has a golden file; the two never drift apart. `TIDEGATE_GOLDEN=write` writes them anew, for review."""

import os
from pathlib import Path

import msgspec
import pytest

from tidegate.core import codec
from tidegate.core import protocol as p
from tidegate.core.errors import PublisherError
from tidegate.core.grant import Cohort, GrantBody, Leaving, Resume, Return
from tidegate.core.hardware import Hardware, HardwareRange
from tidegate.core.merkle import CohortProof
from tidegate.core.release import (
    FallbackTo,
    HealthCheck,
    HealthContract,
    Install,
    Part,
    PayloadRef,
    ReleaseTarget,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "protocol"
D = "ab" * 32
N = "0123456789abcdef" * 2
GW1 = HardwareRange(model="gw1", rev_min=2, rev_max=7, exclude_revs=(5,))
ENVELOPE = p.Envelope(
    payload="e30=",
    payload_type=p.EVENT_TYPE,
    signatures=(p.EnvelopeSignature(keyid="k", sig="c2ln"),),
)
STATE = p.DeviceState(
    hardware=Hardware(model="gw1", rev=3, serial="S1"),
    channel="stable",
    agent="0.1.0",
    boot_id="b1",
    running="A",
    slots={
        "A": p.SlotState(
            state="confirmed", release_counter=117, security_version=5, version="2.4.0", sha256=D
        ),
        "B": p.SlotState(state="empty"),
    },
    refuses=("cd" * 32,),
)
NOTE = f"tidegate/audit/default\n12\n{'A' * 43}=\n\n\u2014 tidegate/audit/default {'A' * 91}=\n"
TARGET = p.AssignedTarget(
    path="gw1/2.4.1/rootfs-gw1",
    length=1000,
    sha256=D,
    product="gw1",
    release_counter=118,
    security_version=6,
    hardware=(GW1,),
    channels=("pilot", "stable"),
)
MESSAGES: dict[str, msgspec.Struct] = {
    "enrol_body": p.EnrolBody(
        device_id="gw1-1",
        public_key="0" * 64,
        product="gw1",
        hardware=Hardware(model="gw1", rev=3),
        attributes={"site": "lyon"},
    ),
    "enrol_request": p.EnrolRequest(envelope=ENVELOPE, claim="tgc_x"),
    "enrol_answer": p.EnrolAnswer(device_id="gw1-1", state="accepted"),
    "nonce_answer": p.NonceAnswer(nonce=N, valid_s=120),
    "session_body": p.SessionBody(device_id="gw1-1", nonce=N, boot_id="b1"),
    "rekey_body": p.RekeyBody(device_id="gw1-1", nonce=N, old_key=D, public_key=D),
    "rekey_request": p.RekeyRequest(envelope=ENVELOPE),
    "rekey_answer": p.RekeyAnswer(state="done", key_gen=2),
    "session_request": p.SessionRequest(envelope=ENVELOPE),
    "session_answer": p.SessionAnswer(token="v1.x", expires_in_s=86400, acked_seq=7),
    "poll_answer": p.PollAnswer(work=True, poll_after_s=300, gate_epoch=4),
    "assignment_request": p.AssignmentRequest(nonce=N, state=STATE),
    "assignment_body_install": p.AssignmentBody(
        device_id="gw1-1",
        device_key=D,
        seq=9,
        issued=1_790_000_000,
        expires=1_790_600_000,
        nonce=N,
        action="install",
        update="u-1",
        rollout="gw1-2.4.1",
        ring="pilot",
        target=TARGET,
        repo=p.RepoBinding(root_min=1, timestamp_min=2, snapshot_min=3),
        policy=p.DeliveryPolicy(activate_window=("02:00-05:00",), bps_max=65536),
    ),
    "assignment_body_none": p.AssignmentBody(
        device_id="gw1-1", device_key=D, seq=9, issued=1, expires=2, nonce=N, action="none"
    ),
    "assignment_answer": p.AssignmentAnswer(envelope=ENVELOPE),
    "assignment_request_witness": p.AssignmentRequest(nonce=N, state=STATE, audit_seen=NOTE),
    "assignment_answer_audit": p.AssignmentAnswer(
        envelope=ENVELOPE, audit=p.AuditNews(checkpoint=NOTE, proof=(D, D))
    ),
    "permit_request": p.PermitRequest(
        nonce=N, update="u-1", attempt=1, slot_sha256=D, release_counter=118
    ),
    "permit_body": p.PermitBody(
        device_id="gw1-1",
        permit="p-1",
        update="u-1",
        attempt=1,
        slot_sha256=D,
        gate_epoch=4,
        nonce=N,
        issued=1_790_000_000,
    ),
    "permit_answer_no": p.PermitAnswer(because="the rollout is halted", retry_after_s=600),
    "time_request": p.TimeRequest(nonce=N),
    "time_body": p.TimeBody(device_id="gw1-1", nonce=N, time=1_790_000_000),
    "event_heartbeat": p.EventBody(
        device_id="gw1-1",
        seq=1,
        at=1_790_000_000,
        kind="heartbeat",
        variant="gw1-r3",
        metrics=p.Metrics(errors=2, device_s=300),
    ),
    "event_reverted": p.EventBody(
        device_id="gw1-1",
        seq=2,
        at=1_790_000_000,
        kind="reverted",
        update="u-1",
        attempt=1,
        release_counter=118,
        from_counter=117,
        variant="gw1-r3",
        reason="health.service",
        health=(p.CheckResult(name="core", ok=False, detail="not running"),),
    ),
    "events_request": p.EventsRequest(events=(p.EventItem(envelope=ENVELOPE),)),
    "events_answer": p.EventsAnswer(acked_seq=2),
    "events_answer_log": p.EventsAnswer(acked_seq=2, want_log=p.LogWish(update="u-1", attempt=1)),
    "log_request": p.LogRequest(update="u-1", attempt=1, data=b"x"),
    "log_answer": p.LogAnswer(),
    "problem": p.Problem(
        type="urn:tidegate:error:request.invalid",
        title="Invalid",
        status=400,
        code="request.invalid",
    ),
    "assignment_body_fallback": p.AssignmentBody(
        device_id="gw1-1",
        device_key=D,
        seq=9,
        issued=1_790_000_000,
        expires=1_790_600_000,
        nonce=N,
        action="fallback",
        update="u-2",
        target=TARGET,
        repo=p.RepoBinding(root_min=1, timestamp_min=2, snapshot_min=3),
        grant=ENVELOPE,
        cohort_proof=CohortProof(index=1, hashes=(D, "cd" * 32)),
    ),
    "grant_body": GrantBody(
        product="gw1",
        epoch=3,
        serial=1_790_000_000,
        incident="INC-2026-014",
        reason="boot loops",
        hardware=(GW1,),
        cohort=Cohort(merkle_root=D, count=1832),
        leaving=(Leaving(release_counter=118, sha256=D),),
        to=(
            Return(
                path="gw1/2.4.0/rootfs-gw1",
                length=1000,
                sha256="cd" * 32,
                release_counter=117,
                security_version=6,
            ),
        ),
        resume=Resume(min_counter=119),
        issued=1_790_000_000,
        expires=1_791_209_600,
        asked_by="olga",
    ),
    "release_target": ReleaseTarget(
        product="gw1",
        version="2.4.1",
        release_counter=118,
        security_version=6,
        channels=("pilot", "stable"),
        hardware=(GW1,),
        install=Install(size=4096, sha256=D),
        payloads=(PayloadRef(kind="full", sha256=D, length=1000, index_sha256=D),),
        fallback_to=(FallbackTo(counter=117, expires=1_792_592_000),),
        health=HealthContract(checks=(HealthCheck(name="boot", kind="boot"),)),
    ),
    "release_target_parts": ReleaseTarget(
        product="gw1",
        version="2.4.1",
        release_counter=118,
        security_version=6,
        channels=("stable",),
        hardware=(GW1,),
        install=Install(size=4096, sha256=D),
        payloads=(PayloadRef(kind="full", sha256=D, length=1000, index_sha256=D),),
        parts=(
            Part(
                component="app",
                format="archive",
                install=Install(size=7, sha256=D),
                package=Install(size=10240, sha256=D),
                payloads=(PayloadRef(kind="full", sha256=D, length=900, index_sha256=D),),
                settings={"keep": ["owners"]},
            ),
            Part(
                component="motd",
                format="module",
                install=Install(size=2048, sha256=D),
                payloads=(PayloadRef(kind="full", sha256=D, length=800, index_sha256=D),),
                settings={"module": "single-file"},
            ),
        ),
        crit=("parts",),
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_what_its_golden_file_says(name: str) -> None:
    message = MESSAGES[name]
    path = GOLDEN / f"{name}.json"
    if os.environ.get("TIDEGATE_GOLDEN") == "write":
        path.write_bytes(codec.canonical(message) + b"\n")
    golden = path.read_bytes().rstrip()
    assert codec.canonical(message) == golden
    assert msgspec.json.decode(golden, type=type(message)) == message


def test_no_golden_file_is_left_over() -> None:
    assert {f"{name}.json" for name in MESSAGES} == {path.name for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("name", [n for n, m in MESSAGES.items() if hasattr(m, "crit")])
def test_a_signed_document_with_an_unknown_crit_field_is_refused(name: str) -> None:
    message = MESSAGES[name]
    plain = msgspec.to_builtins(message)
    plain["crit"] = ["tomorrow"]
    with pytest.raises(PublisherError) as caught:
        codec.decode_document(codec.canonical(plain), type(message))
    assert caught.value.code == "sig.malformed"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1.5}',
        b'{"a":NaN}',
        b"\xef\xbb\xbf{}",
        b"[]",
        b"",
        b"{",
        b'{"a":9007199254740993}',
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a":"\xff"}',
    ],
)
def test_what_json_lets_through_is_refused_in_a_signed_document(body: bytes) -> None:
    with pytest.raises(PublisherError) as caught:
        codec.screen(body, 1000)
    assert caught.value.code == "sig.malformed"


def test_an_oversized_document_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(PublisherError) as caught:
        codec.screen(b"{" * 2000, 1000)
    assert caught.value.code == "sig.oversized"
