"""The device's own key, joining a fleet with it, and sessions. Worker side: this signs.

The private key is made on the device and never leaves it. Enrolling again with the same key is safe and answers with the present state.
"""

from tidegate.agent import api
from tidegate.agent.enrolment import ENROLLED_NAME, KEY_NAME
from tidegate.agent.jobs import Enrolled, SessionMade
from tidegate.agent.ports import Clock, Storage, Transport
from tidegate.agent.settings import Settings
from tidegate.core.errors import DeviceError
from tidegate.core.keys import SEED_BYTES, Signer, private_from_seed, sign_document
from tidegate.core.protocol import (
    ENROL_TYPE,
    SESSION_TYPE,
    EnrolAnswer,
    EnrolBody,
    EnrolRequest,
    NonceAnswer,
    SessionAnswer,
    SessionBody,
    SessionRequest,
)


def device_signer(storage: Storage, clock: Clock, *, make: bool = False) -> Signer:
    """Return the device's key; make and keep one where there is none, if told so.

    Raises:
        DeviceError: `key.missing`: none, and none was to be made.
        PublisherError: `key.malformed`: the file is damaged.
    """
    private = storage.read(KEY_NAME)
    if private is None:
        if not make:
            raise DeviceError("key.missing", "this device has no key yet: enrol it first")
        private = private_from_seed(clock.random_bytes(SEED_BYTES["ed25519"]))
        storage.write(KEY_NAME, private)
    return Signer.from_private(private)


def enrol(
    storage: Storage, clock: Clock, transport: Transport, settings: Settings, claim: str | None
) -> Enrolled:
    """Ask to join, proving that this device holds its key.

    Raises:
        TransferError, RequestError: `claim.invalid`, `request.conflict`, …
    """
    signer = device_signer(storage, clock, make=True)
    body = EnrolBody(
        device_id=settings.device_id,
        public_key=signer.public.public,
        keytype="ed25519",
        product=settings.product,
        hardware=settings.hardware,
        channel=settings.channel,
        attributes=settings.attributes,
        agent=settings.agent,
    )
    request = EnrolRequest(envelope=sign_document(body, ENROL_TYPE, signer), claim=claim)
    answer = api.post(transport, "/d/v1/enrol", request, EnrolAnswer, clock=clock)
    storage.write(ENROLLED_NAME, answer.state.encode())
    fingerprint = signer.public.identity
    spaced = " ".join(fingerprint[at : at + 4] for at in range(0, 16, 4))
    return Enrolled(state=answer.state, fingerprint=spaced, poll_after_s=answer.poll_after_s)


def session(
    storage: Storage, clock: Clock, transport: Transport, settings: Settings, boot_id: str
) -> SessionMade:
    """Sign the server's nonce and get a token.

    Raises:
        TransferError, RequestError: `device.pending`, `device.revoked`, `device.unknown`, …
    """
    signer = device_signer(storage, clock)
    nonce = api.post(transport, "/d/v1/nonce", {}, NonceAnswer, clock=clock).nonce
    body = SessionBody(
        device_id=settings.device_id, nonce=nonce, boot_id=boot_id, agent=settings.agent
    )
    request = SessionRequest(envelope=sign_document(body, SESSION_TYPE, signer))
    answer = api.post(transport, "/d/v1/session", request, SessionAnswer, clock=clock)
    return SessionMade(
        token=answer.token, expires_in_s=answer.expires_in_s, acked_seq=answer.acked_seq
    )
