"""The list of devices, and one device."""

from dataclasses import dataclass
from typing import Literal

from tidegate.server.web.views.parts import CheckRow, Pair, TimelineGroup


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device in a list."""

    id: str
    variant: str
    site: str
    runs: str
    state: str
    why: str
    seen_at: int


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter with its count."""

    label: str
    query: str
    count: int
    current: bool = False


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A device that asks to be enrolled."""

    id: str
    product: str
    variant: str
    serial: str
    at: int
    key: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of devices: static, or by query."""

    name: str
    query: str
    devices: int | None


@dataclass(frozen=True, slots=True)
class DevicesPage:
    """The list of devices, and those who ask to enrol. `problem` says what is wrong with the query."""

    now: int
    query: str
    total: int
    seen_24h: int
    found: int
    found_is_exact: bool = True
    rows: tuple[DeviceRow, ...] = ()
    chips: tuple[Chip, ...] = ()
    next_cursor: str = ""
    pending: tuple[PendingRow, ...] = ()
    pending_total: int = 0
    groups: tuple[GroupRow, ...] = ()
    variants: tuple[tuple[str, int], ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WhyRow:
    """One check a device passes on its way to an update. `state` is passed, stopped (here it waits) or next (has not come yet)."""

    state: Literal["passed", "stopped", "next"]
    text: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of a device."""

    name: str
    state: str
    version: str
    counter: int | None
    digest: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class SentLog:
    """A log that a device sent after a failure: its end, untrusted text."""

    at: int
    reason: str
    rollout: str
    chars: int
    text: str


@dataclass(frozen=True, slots=True)
class DevicePage:
    """One device."""

    now: int
    id: str
    product: str
    variant: str
    serial: str
    site: str
    state: str
    state_text: str
    enrolment: str
    seen_at: int
    question: str
    verdict: str
    rollout: str = ""
    checks: tuple[WhyRow, ...] = ()
    timeline: tuple[TimelineGroup, ...] = ()
    updates_total: int = 0
    slots: tuple[Slot, ...] = ()
    bootloader: str = ""
    contract: tuple[CheckRow, ...] = ()
    contract_of: str = ""
    identity: tuple[Pair, ...] = ()
    groups: tuple[str, ...] = ()
    held: bool = False
    held_by: str = ""
    failed_boot: str = ""
    failed_boot_at: int = 0
    logs: tuple[SentLog, ...] = ()
