"""What a rollout asks for, in words: level, audience, deadlines, retry, how many at once, windows. The same words in web, API and command line."""

import datetime as dt

import msgspec

from tidegate.core.amounts import format_duration, format_share, format_size
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout.levels import MEANS, level_of
from tidegate.rollout.model import ALL_BP, Policy
from tidegate.rollout.presets import GROUP
from tidegate.rollout.retry import BUDGET_LEAST


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what it is about, and what holds."""

    name: str
    text: str


def terms_of(policy: Policy, delivery: DeliveryPolicy) -> tuple[Term, ...]:
    """Return the terms of a rollout, each in one line; what is not bounded is said as well, where people ask for it."""
    found = {
        "Level": _level(policy, delivery),
        "Audience": "newcomers are taken, also after completion"
        if policy.dynamic
        else "fixed when it was made; newcomers are out",
        "Deadlines": _deadlines(policy),
        "Retry": _retry(policy),
        "At once": _at_once(policy),
        "Holdback": f"{format_share(policy.holdback_bp)} of the last ring, until the watch ends"
        if policy.holdback_bp
        else "",
        "Windows": _windows(delivery),
        "Link": f"at most {format_size(delivery.bps_max)}/s a device" if delivery.bps_max else "",
        "Leave ahead": f"for at most {format_duration(delivery.offline_permit_s)}"
        if delivery.offline_permit_s
        else "",
        "Refused before": "tried again where a device went back from it"
        if delivery.retry_refused
        else "",
        "Priority": f"{policy.priority:+d}" if policy.priority else "",
    }
    return tuple(Term(name=name, text=text) for name, text in found.items() if text)


def _level(policy: Policy, delivery: DeliveryPolicy) -> str:
    level = level_of(policy, delivery)
    when = ""
    if delivery.deadline:
        at = dt.datetime.fromtimestamp(delivery.deadline, dt.UTC)
        when = f" (by {at:%Y-%m-%d %H:%M} UTC)"
    return f"{level}{when}: {MEANS[level]}"


def _deadlines(policy: Policy) -> str:
    own = policy.deadlines
    return ", ".join(
        f"{name} {format_duration(seconds) if seconds else 'none'}"
        for name, seconds in (
            ("start", own.start_s),
            ("finish", own.finish_s),
            ("return", own.return_s),
            ("confirm", own.confirm_s),
        )
    )


def _retry(policy: Policy) -> str:
    own = policy.retry
    parts = [
        f"{own.tries} attempts in all",
        f"pause {format_duration(own.backoff_s)}, doubled up to {format_duration(own.most_s)}",
    ]
    if own.budget_bp != ALL_BP:
        share = format_share(own.budget_bp)
        parts.append(f"further ones: {BUDGET_LEAST}, or {share} of the devices where that is more")
    parts += [f"{name}: {tries}" for name, tries in sorted(own.reasons.items())]
    return "; ".join(parts)


def _at_once(policy: Policy) -> str:
    parts = [f"{policy.at_once:,} permits"] if policy.at_once else []
    parts += [
        f"{most:,} of group {name.removeprefix(GROUP)}"
        if name.startswith(GROUP)
        else f"{most:,} of one {name}"
        for name, most in sorted(policy.at_once_per.items())
    ]
    if policy.first:
        parts.append(f"{policy.first:,} before anything is proved")
    return "at most " + ", ".join(parts) if parts else ""


def _windows(delivery: DeliveryPolicy) -> str:
    zone = "the device's own zone" if delivery.zone == "device" else delivery.zone
    pairs = (("download", delivery.download_window), ("activate", delivery.activate_window))
    parts = [f"{verb} {', '.join(windows)}" for verb, windows in pairs if windows]
    return f"{'; '.join(parts)} ({zone})" if parts else ""
