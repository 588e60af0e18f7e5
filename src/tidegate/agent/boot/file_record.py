"""The record of the `file` boot loader, and the decision that a virtual board takes with it. Pure: bytes in, bytes out.

One JSON object with a checksum over the rest. The board (`tidegate sim board`, a container's start script) calls `decide` at each start, writes what it
returns, and only then starts the slot: a try is spent before it is used.
"""

import zlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tidegate.agent.ports import SlotMark, SlotName
from tidegate.core.errors import DeviceError

#: Most tries that can be asked for; as in `protocol.DeliveryPolicy`.
TRIES_MAX: Final = 15

Slot = Annotated[str, Meta(min_length=1, max_length=64)]


class BootRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the boot loader keeps.

    Attributes:
        primary: booted when nothing is on trial.
        trial: the slot on trial, kept until it is committed or marked bad, also when its tries are spent.
        tries: boots left for it.
        bad: slots never to be booted until armed again.
    """

    slots: tuple[Slot, Slot]
    primary: Slot
    trial: Slot | None = None
    tries: Annotated[int, Meta(ge=0, le=TRIES_MAX)] = 0
    bad: tuple[Slot, ...] = ()


class _Sealed(msgspec.Struct, frozen=True):
    crc32: int
    record: msgspec.Raw


def encode(record: BootRecord) -> bytes:
    """Return the file's bytes."""
    body = msgspec.json.encode(record)
    return msgspec.json.encode(_Sealed(zlib.crc32(body), msgspec.Raw(body)))


def decode(body: bytes) -> BootRecord:
    """Read the file's bytes.

    Raises:
        DeviceError: `activate.bootloader`: damaged. Nothing is made up in its place.
    """
    try:
        sealed = msgspec.json.decode(body, type=_Sealed)
        if zlib.crc32(bytes(sealed.record)) != sealed.crc32:
            raise DeviceError("activate.bootloader", "the boot record's checksum is wrong")
        record = msgspec.json.decode(sealed.record, type=BootRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DeviceError("activate.bootloader", f"the boot record is damaged: {error}") from error
    known = {record.primary, *record.bad} | ({record.trial} if record.trial else set())
    if not known <= set(record.slots):
        raise DeviceError("activate.bootloader", "the boot record names a slot that is not there")
    return record


def decide(record: BootRecord) -> tuple[SlotName, BootRecord]:
    """Choose what to boot. The record returned must be durable before that slot is started."""
    if record.trial is not None and record.tries > 0:
        return record.trial, msgspec.structs.replace(record, tries=record.tries - 1)
    return record.primary, record


def mark(record: BootRecord, slot: SlotName) -> SlotMark:
    """Say what the record holds of a slot."""
    if slot == record.trial:
        return "trial"
    return "bad" if slot in record.bad else "good"


def armed(record: BootRecord, slot: SlotName, tries: int) -> BootRecord:
    """Put a slot on trial: order and tries in one change."""
    return msgspec.structs.replace(
        record,
        trial=_known(record, slot),
        tries=max(1, min(tries, TRIES_MAX)),
        bad=_without(record, slot),
    )


def committed(record: BootRecord, slot: SlotName) -> BootRecord:
    """Make a slot the primary; nothing is on trial any more."""
    return msgspec.structs.replace(
        record, primary=_known(record, slot), trial=None, tries=0, bad=_without(record, slot)
    )


def marked_bad(record: BootRecord, slot: SlotName) -> BootRecord:
    """Never boot a slot until it is armed again; the other one is the primary then."""
    other = next(one for one in record.slots if one != _known(record, slot))
    on_trial = record.trial is not None and record.trial != slot
    return msgspec.structs.replace(
        record,
        primary=other if record.primary == slot else record.primary,
        trial=record.trial if on_trial else None,
        tries=record.tries if on_trial else 0,
        bad=(*_without(record, slot), slot),
    )


def _known(record: BootRecord, slot: SlotName) -> SlotName:
    if slot not in record.slots:
        raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
    return slot


def _without(record: BootRecord, slot: SlotName) -> tuple[SlotName, ...]:
    return tuple(one for one in record.bad if one != slot)
