"""What an agent is told once, at its start: the validated form of `agent.toml` (`agent.config` reads it; a simulator makes it directly)."""

from typing import Literal

import msgspec

from tidegate import __version__
from tidegate.agent.checkup.contract import HealthPolicy
from tidegate.core.hardware import Hardware, Name
from tidegate.core.protocol import Attributes, DeviceId, Short
from tidegate.core.release import Channel, Components, Running

ClockStep = Literal["never", "floor", "signed"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What this device is, and how it behaves. Rates are bytes a second of what comes over the link; 0 = no limit.

    Attributes:
        key: where the device key is: `file`, or a PKCS#11 URI.
        anchor: root metadata that came with the image; the one thing trusted from the start.
        installed: what the factory put into the running slot; counter 0 when nobody says.
        components: components that something else installs, by name.
        beside: components that this agent installs beside the slots.
        installers: what `[installer.NAME]` holds, by name; each installer reads its own.
        spool: directory for packages of foreign installers, which cannot be streamed.
        download_windows: texts of `core.schedule`; empty = always. Both this and the server's own must be open.
        poll_interval_s: at least this long between polls; 0 = as the server says.
        stay_connected: wait at the server for news, where it allows that, instead of asking now and then.
        send_logs: send the end of the system's log after a failure, where the server asks for it.
        rate_min: slower than this over `rate_grace_s` ends an attempt with `download.slow`.
        reserve_bytes: free space of the state directory that is left alone.
        metered: whether to download over a metered link: `allow`, `deny`, or `security-only`: releases of that kind alone.
        metered_file: its first word says whether the link is metered: `yes` or `no`; not there = no.
        mirrors: base addresses of mirrors, tried in this order before those of the release and the server; trusted with nothing.
        release_mirrors: are the mirrors asked that a release's signers name.
        security_deadline_s, inhibitors_after_s, give_up_s, offline_permit_s: see `agent.events.LocalRules`.
        sync_bytes: plain bytes between two flushes of the slot: above 16 MiB nothing is gained, and at most this much is fetched again.
        hold_max_s: a hold without an end ends after this.
        offline_bundles: may a person install a release from a bundle on a stick or from a mirror directory, without the server's leave.
        health: what this device asks for beside a release's health contract.
        clock_step: may the agent set the system's clock: `never`; `floor`: up to the build time of the confirmed image; `signed`: also to the time that the
            server signed.
    """

    device_id: DeviceId
    product: Name
    hardware: Hardware
    channel: Channel = "stable"
    attributes: Attributes = {}
    region: Short = ""
    site: Short = ""
    connectivity: Literal["always", "intermittent"] = "always"
    agent: str = __version__
    anchor: bytes = b""
    claim: str | None = None
    key: str = "file"
    installed: Running = Running()
    components: Components = {}
    beside: tuple[Name, ...] = ()
    allow: tuple[str, ...] = ("raw_image",)
    installers: dict[str, dict[str, str | int | bool | list[str]]] = {}
    spool: str = ""
    download_windows: tuple[str, ...] = ()
    download_zone: str = "UTC"
    activate_windows: tuple[str, ...] = ()
    activate_zone: str = "UTC"
    zone: str = "UTC"
    poll_interval_s: int = 0
    stay_connected: bool = False
    send_logs: bool = True
    rate: int = 0
    rate_min: int = 1024
    rate_grace_s: int = 60
    reserve_bytes: int = 0
    hold_max_s: int = 7 * 86_400
    manual_confirm: bool = False
    reboot_delay_s: int = 0
    timeout_s: float = 30.0
    sync_bytes: int = 16 << 20
    clock_step: ClockStep = "never"
    offline_bundles: bool = False
    metered: Literal["allow", "deny", "security-only"] = "allow"
    metered_file: str | None = None
    mirrors: tuple[str, ...] = ()
    release_mirrors: bool = True
    security_deadline_s: int = 0
    inhibitors_after_s: int | None = None
    give_up_s: int = 0
    offline_permit_s: int = 0
    health: HealthPolicy = HealthPolicy()


class ErrorSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a device counts its errors: one of these, or nowhere.

    Attributes:
        file: holds one number.
        metrics: a file or `http://…` in the Prometheus text format; `metric` says which.
        journal: systemd's, entries at least so urgent; of `units` only, where there are any.
    """

    file: str | None = None
    metrics: str | None = None
    metric: str = ""
    journal: str | None = None
    units: tuple[str, ...] = ()


class MeterSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a metric of the device's own is read: one of these.

    Attributes:
        name: as rollouts name it.
        file: holds one number.
        command: prints one number.
        metrics: a file or `http://…` in the Prometheus text format; `metric` says which.
        counter: it only grows, and what counts is by how much; else it is a value at a time.
    """

    name: str
    file: str | None = None
    command: tuple[str, ...] = ()
    metrics: str | None = None
    metric: str = ""
    counter: bool = False


class WatchdogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The hardware watchdog.

    Attributes:
        timeout_s: after so long without food it resets the board.
        pretimeout_s: so long before that the kernel does what its governor says; 0 = nothing.
        least_s: a shorter time-out than this would bite a healthy agent that waits for a server.
        always: fed outside trials too.
    """

    device: str
    timeout_s: int
    pretimeout_s: int = 0
    least_s: int = 0
    always: bool = False


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a real device's agent is told, validated: what `agent.config` makes of `agent.toml`. Paths are texts, so that it travels as JSON.

    Attributes:
        settings: what the runner and the worker need.
        slots: path, and size in bytes for files, by name.
        beside: folder of each component beside the slots, by name.
        boot_settings: what `[bootloader.NAME]` holds.
        narrow: no word of the file's: what was learnt of the link since the agent started (`agent.net.link`).
    """

    settings: Settings
    url: str
    ca: str | None
    timeout_s: float
    slots: dict[str, tuple[str, int | None]]
    beside: dict[str, str]
    bootloader: str
    boot_settings: dict[str, str | int | bool | list[str]]
    reboot: str
    state_dir: str
    errors: ErrorSource
    watchdog: WatchdogSettings | None = None
    inhibit_dir: str
    socket_path: str
    socket_mode: int
    socket_group: str | None
    narrow: bool = False
    meters: tuple[MeterSource, ...] = ()
