"""Joining a fleet, sessions, and new keys. Worker side: this signs.

The private key is made on the device and never leaves it. Everything here may be asked again after a cut: enrolling with the same key answers with the present
state, and a new key that the server has taken is taken.
"""

import contextlib

from tidegate.agent.enrolment import ENROLLED_NAME, SESSION_NAME
from tidegate.agent.jobs import Enrolled, Rekeyed, SessionMade
from tidegate.agent.net import api
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.agent.trust.device_keys import DeviceKeys, source_of
from tidegate.core.errors import DeviceError, RequestError
from tidegate.core.keys import Signer, add_signature, sign_document
from tidegate.core.protocol import (
    ENROL_TYPE,
    REKEY_TYPE,
    SESSION_TYPE,
    EnrolAnswer,
    EnrolBody,
    EnrolRequest,
    NonceAnswer,
    RekeyAnswer,
    RekeyBody,
    RekeyRequest,
    SessionAnswer,
    SessionBody,
    SessionRequest,
    session_ref,
)


def keys_of(world: World, settings: Settings) -> DeviceKeys:
    """Return the device's keys.

    Raises:
        ConfigError: `[device] key` cannot be used.
    """
    return DeviceKeys(world.storage, source_of(settings.key, world.clock))


def device_signer(world: World, settings: Settings) -> Signer:
    """Return the device's present key.

    Raises:
        DeviceError: `key.missing`: none yet. PublisherError: `key.malformed`.
    """
    return keys_of(world, settings).present()


def enrol(world: World, settings: Settings, claim: str | None) -> Enrolled:
    """Ask to join, proving that this device holds its key.

    Raises:
        TransferError, RequestError: `claim.invalid`, `request.conflict`, …
    """
    signer = keys_of(world, settings).present(make=True)
    body = EnrolBody(
        device_id=settings.device_id,
        public_key=signer.public.public,
        keytype=signer.public.keytype,  # type: ignore[arg-type]  # one of the two
        product=settings.product,
        hardware=settings.hardware,
        channel=settings.channel,
        attributes=settings.attributes,
        agent=settings.agent,
    )
    request = EnrolRequest(envelope=sign_document(body, ENROL_TYPE, signer), claim=claim)
    answer = api.post(world.transport, "/d/v1/enrol", request, EnrolAnswer, clock=world.clock)
    world.storage.write(ENROLLED_NAME, answer.state.encode())
    return Enrolled(
        state=answer.state, fingerprint=signer.public.identity, poll_after_s=answer.poll_after_s
    )


def session(world: World, settings: Settings, boot_id: str) -> SessionMade:
    """Sign the server's nonce and get a token. A new key that waits is settled first; one that the server orders is made.

    Raises:
        TransferError, RequestError: `device.pending`, `device.revoked`, `device.unknown`, …
    """
    keys = keys_of(world, settings)
    if keys.next() is not None:
        # refused: the old key may still be good; what is wrong with it the session will say
        with contextlib.suppress(RequestError):
            _settle(world, settings, keys)
    answer = _session(world, settings, keys.present(), boot_id)
    if answer.rekey and keys.next() is None and _ordered(world, settings, keys):
        answer = _session(world, settings, keys.present(), boot_id)
    return SessionMade(
        token=answer.token, expires_in_s=answer.expires_in_s, acked_seq=answer.acked_seq
    )


def _ordered(world: World, settings: Settings, keys: DeviceKeys) -> bool:
    """Make the new key that the server wants; say whether it is in place."""
    try:
        return _settle(world, settings, keys) == "done"
    except RequestError:
        return False


def _session(world: World, settings: Settings, signer: Signer, boot_id: str) -> SessionAnswer:
    storage = world.storage
    body = SessionBody(
        device_id=settings.device_id,
        nonce=_nonce(world),
        boot_id=boot_id,
        agent=settings.agent,
        previous=(storage.read(SESSION_NAME) or b"").decode("ascii", "replace")[:64],
    )
    request = SessionRequest(envelope=sign_document(body, SESSION_TYPE, signer))
    answer = api.post(world.transport, "/d/v1/session", request, SessionAnswer, clock=world.clock)
    # a full disk must not keep a device away; told again, the session before is as good
    with contextlib.suppress(DeviceError):
        storage.write(SESSION_NAME, session_ref(answer.token).encode())
    return answer


def rekey(world: World, settings: Settings) -> Rekeyed:
    """Make a new key, or go on with the one that waits, and have the server take it.

    Raises:
        TransferError: the link; the new key waits, and is settled with the next session.
        RequestError: `device.*`, `request.conflict`.
    """
    keys = keys_of(world, settings)
    keys.present()
    new = keys.next(make=True)
    assert new is not None  # noqa: S101 - made; for the type checker
    return Rekeyed(state=_settle(world, settings, keys), fingerprint=new.public.identity)


def _settle(world: World, settings: Settings, keys: DeviceKeys) -> str:
    """Ask the server to take the next key, and put it in place when it has. Returns `done` or `pending`."""
    old, new = keys.present(), keys.next(make=True)
    assert new is not None  # noqa: S101 - made; for the type checker
    body = RekeyBody(
        device_id=settings.device_id,
        nonce=_nonce(world),
        old_key=old.public.identity,
        public_key=new.public.public,
        keytype=new.public.keytype,  # type: ignore[arg-type]  # one of the two
    )
    envelope = add_signature(sign_document(body, REKEY_TYPE, old), new)
    answer = api.post(
        world.transport,
        "/d/v1/rekey",
        RekeyRequest(envelope=envelope),
        RekeyAnswer,
        clock=world.clock,
    )
    if answer.state == "done":
        keys.promote()
    return answer.state


def _nonce(world: World) -> str:
    return api.post(world.transport, "/d/v1/nonce", {}, NonceAnswer, clock=world.clock).nonce
