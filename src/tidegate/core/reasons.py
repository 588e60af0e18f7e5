"""The closed list of reasons: why an update ended, or what a device noticed.

A reason is a dotted code, stable for ever. The same code stands in the agent, in events, in metrics labels, in errors, in the
documentation and on the web. Adding one is a reviewed change of this file; removing or renaming one is not possible.
"""

from typing import Final

#: Every reason with its plain words, in the order of an update's life.
REASONS: Final[dict[str, str]] = {
    "sig.threshold": "too few distinct keys signed",
    "sig.unknown_key": "signed by a key that is not trusted for this",
    "sig.expired": "metadata is past its expiry",
    "sig.rollback": "metadata older than what the device has seen",
    "sig.mix_and_match": "metadata files that do not belong together",
    "sig.oversized": "metadata larger than its limit",
    "sig.malformed": "metadata that cannot be parsed, or asks for what this version does not know",
    "sig.director_mismatch": "director and release repository do not name the same image",
    "sig.replayed": "an assignment or permit made for another device, time or question",
    "compat.hardware": "made for other hardware",
    "compat.channel": "not released to this device's channel",
    "compat.counter": "not newer than what is installed",
    "compat.floor": "below the device's security floor",
    "compat.waypoint": "another release must be passed through first",
    "compat.requires": "needs another component in a version that is not there",
    "compat.agent": "needs a newer agent",
    "compat.mandate": "not this device's turn by the schedule that the release's signers set",
    "download.dns": "the server's name did not resolve",
    "download.refused": "the server refused the connection or the request",
    "download.tls": "the encrypted connection could not be set up",
    "download.timeout": "no answer in time",
    "download.slow": "slower than the minimum rate",
    "download.truncated": "the transfer ended early",
    "download.range": "the server answered with another range than asked for",
    "download.hash": "bytes differ from what was signed",
    "download.space": "no room for the download",
    "install.slot": "the candidate slot is missing, busy or too small",
    "install.base_mismatch": "the delta's base is not what is installed",
    "install.write": "writing to the slot failed",
    "install.space": "no room to install",
    "install.readback": "the slot read back differs from what was signed",
    "install.installer": "the installer reported a failure",
    "activate.no_permit": "the server gave no leave to activate",
    "activate.bootloader": "the boot loader could not be set",
    "activate.inhibited": "an application on the device said not now",
    "activate.window_missed": "the activation window passed",
    "boot.no_return": "the device did not come back with the new image",
    "boot.counter_exhausted": "the boot loader used up its tries",
    "boot.wrong_slot": "another slot was booted than the one set",
    "boot.watchdog": "the watchdog reset the device",
    "health.boot": "the system did not finish booting",
    "health.network": "the network did not come up",
    "health.service": "a core service did not run",
    "health.error_rate": "too many errors in the warm-up window",
    "health.resource": "too little memory or disk",
    "health.command": "a health command failed",
    "health.timeout": "health was not established in time",
    "user.declined": "declined on the device",
    "user.held": "held on the device",
    "operator.cancelled": "cancelled by an operator",
    "operator.halted": "the rollout was halted",
    "operator.fallback": "ordered back by an operator",
    "operator.recalled": "the release was recalled",
    "lost.start": "accepted, and never started",
    "lost.finish": "started, and never finished",
    "lost.return": "activated, and never heard again",
    "lost.confirm": "booted, and never confirmed",
    "agent.state_damaged": "the agent's state could not be read",
    "agent.loop": "the update went in circles",
    "agent.internal": "a fault in the agent itself",
    "clock.untrusted": "time could not be established",
    "security.freeze": "stale metadata was presented as current",
    "security.clone": "two devices use one identity",
    "security.fallback_replayed": "a used fallback grant was presented again",
    "security.audit_fork": "the server showed two histories",
    "security.endless_data": "the server sent more than was agreed",
}

#: Families whose failures say nothing against the release: the way was bad, not the image.
TRANSFER_FAMILIES: Final = frozenset({"download"})

#: Families that end an update before activation because the device refused it.
REFUSAL_FAMILIES: Final = frozenset({"sig", "compat", "user"})


def is_reason(code: str) -> bool:
    """Say whether `code` (untrusted text) is one of the closed list."""
    return code in REASONS


def family(code: str) -> str:
    """Return the part before the dot: `health` for `health.network`."""
    return code.partition(".")[0]
