"""One device: why it is (not) updating, what it went through, its slots, its contract, who it is."""

from typing import Any, Final

import msgspec

from tidegate.core.hardware import Hardware, compatible
from tidegate.core.protocol import EventBody, Restart
from tidegate.core.release import ReleaseTarget
from tidegate.core.words import key_words
from tidegate.rollout import explain
from tidegate.server import device_logs, why
from tidegate.server.devices import slots_now
from tidegate.server.groups import Book
from tidegate.server.outcomes import BEFORE
from tidegate.server.store import Connection, web_queries
from tidegate.server.store import web_devices as rows
from tidegate.server.web import words
from tidegate.server.web.queries import contracts, devices
from tidegate.server.web.views import (
    CheckRow,
    DevicePage,
    Pair,
    SentLog,
    Slot,
    TimelineGroup,
    TimelineRow,
    WhyRow,
)
from tidegate.server.web.words import Tone
from tidegate.server.why import NO_BOUNDS, Bounds, Standing

Row = dict[str, Any]
UPDATES: Final = 12
EVENTS: Final = 120
#: What each kind of event says: icon, colour, words.
EVENTS_SAID: Final[dict[str, tuple[str, Tone, str]]] = {
    "downloading": ("down", "", "Downloading."),
    "staged": ("down", "ok", "Staged: verified, and inert until a permit."),
    "rebooting": ("go", "", "Activated, rebooting."),
    "verifying": ("go", "", "Booted the new slot, verifying."),
    "confirmed": ("ok", "ok", "Confirmed."),
    "failed": ("bad", "bad", "Failed:"),
    "reverted": ("revert", "bad", "Went back by itself:"),
    "declined": ("wait", "", "Declined:"),
    "permit_returned": ("wait", "", "Gave its permit back unused."),
    "security": ("shield", "warn", "Noticed:"),
}
_SLOT_STATES: Final = {
    "staged": "staged",
    "writing": "downloading",
    "trying": "verifying",
    "bad": "failed",
    "empty": "empty",
    "confirmed": "other",
}


def page(
    conn: Connection, device_id: str, now: int, bounds: Bounds = NO_BOUNDS
) -> DevicePage | None:
    """Return one device by its id (untrusted), or None; `bounds`: what the server bounds for all rollouts."""
    device = rows.device(conn, device_id)
    if device is None:
        return None
    number = int(device["row"])
    standing = why.standing(conn, device, now, bounds)
    updates = rows.updates(conn, number, UPDATES)
    events = rows.events(conn, number, EVENTS)
    newest = rows.newest_updates(conn, [number]).get(number)
    state, said = devices.state_of(device, newest, now)
    if state == "idle" and _is_concerned(standing) and not standing.facts.update_state:
        state, said = "waiting", standing.facts.release
    word = words.state(state).word
    failed = next((one for one in events if one["kind"] in {"failed", "reverted"}), None)
    contract, contract_of = _contract(conn, device, standing, events)
    return DevicePage(
        now=now,
        id=str(device["id"]),
        product=str(device["product"]),
        variant=str(device["variant"]),
        serial=str(device["serial"]),
        site=str(device["site"]),
        state=state,
        state_text=f"{word}, {said}"
        if said and state in {"staged", "silent", "held", "waiting"}
        else word,
        enrolment=str(device["state"]),
        seen_at=int(device["last_seen"]),
        question=_question(standing),
        verdict=_verdict(standing, now),
        rollout=standing.facts.rollout if _is_concerned(standing) else "",
        checks=_checks(standing, now),
        timeline=_timeline(conn, device, updates, events),
        updates_total=rows.update_count(conn, number),
        slots=_slots(device, rows.versions(conn, str(device["product"]))),
        contract=contract,
        contract_of=contract_of,
        identity=_identity(device, now),
        groups=tuple(sorted(Book(conn).attributes(device, now)["group"])),
        held=bool(device["held"]),
        held_by=str(device["held_by"]),
        failed_boot=_failed_boot(failed),
        failed_boot_at=int(failed["received_at"]) if failed else 0,
        logs=_logs(conn, number),
    )


def _logs(conn: Connection, number: int) -> tuple[SentLog, ...]:
    """Return the ends of the logs that a device sent."""
    return tuple(
        SentLog(
            at=one.received_at,
            reason=one.reason,
            rollout=one.rollout,
            chars=one.chars,
            text=device_logs.text_of(conn, number, one.id)[-device_logs.SHOWN_CHARS :],
        )
        for one in device_logs.of_device(conn, number)
        if one.received_at is not None
    )


def _is_concerned(standing: Standing) -> bool:
    return bool(standing.facts.rollout) and not standing.facts.up_to_date


def _question(standing: Standing) -> str:
    if _is_concerned(standing) and standing.live is not None:
        way = "back to" if standing.live.row.kind == "fallback" else "to"
        return f"Why is it (not) updating {way} {standing.facts.release}?"
    return "Why is it not updating?"


def _verdict(standing: Standing, now: int) -> str:
    text = explain.verdict(standing.facts, now)
    return words.sentence(text)


def _checks(standing: Standing, now: int) -> tuple[WhyRow, ...]:
    out: list[WhyRow] = []
    stopped = False
    for check in explain.why(standing.facts, now):
        text = check.text[:1].upper() + check.text[1:]
        code = check.code if "." in check.code else ""
        if check.ok and not stopped:
            out.append(WhyRow("passed", text))
        elif check.ok:
            out.append(WhyRow("next", text))
        else:
            out.append(WhyRow("next" if stopped else "stopped", text, code if not stopped else ""))
            stopped = True
    waits = standing.update is not None and standing.update.state in BEFORE
    if waits and standing.target is not None:
        warmup = words.duration(standing.target.health.warmup_s)
        out.append(WhyRow("next", "Reboot, health contract, confirm", f"warm-up of {warmup}"))
    return tuple(out)


def _timeline(
    conn: Connection, device: Row, updates: list[Row], events: list[Row]
) -> tuple[TimelineGroup, ...]:
    versions = rows.versions(conn, str(device["product"]))
    groups = []
    for update in updates:
        mine = [_event(one) for one in events if one["update_id"] == update["id"]]
        mine.append(TimelineRow(int(update["offered_at"]), "wait", "", "Offered."))
        if update["state"] == "lost":
            code = str(update["reason"] or "")
            text = f"Lost: {words.reason(code)}."
            mine.insert(0, TimelineRow(int(update["state_at"]), "lost", "lost", text, code=code))
        before = versions.get(int(update["from_counter"]), "factory image")
        way = "back to " if update["rollout_kind"] == "fallback" else ""
        title = f"{before} \N{RIGHTWARDS ARROW} {way}{update['version']}"
        if update["attempt"] > 1:
            title += f", try {update['attempt']}"
        href = f"/rollouts/{update['rollout']}"
        groups.append(TimelineGroup(title, tuple(mine), str(update["rollout"]), href))
    known = {update["id"] for update in updates}
    others = tuple(_event(one) for one in events if one["update_id"] not in known)
    if others:
        groups.append(TimelineGroup("Outside any update", others[:20]))
    return tuple(groups)


def _event(row: Row) -> TimelineRow:
    kind, code = str(row["kind"]), str(row["reason"] or "")
    icon, tone, text = EVENTS_SAID.get(kind, ("wait", "", kind))
    body = _body(row)
    if kind == "staged" and body is not None and body.bytes:
        text = f"Staged: {words.size(body.bytes)} loaded and verified, inert until a permit."
        if body.resumes:
            text += f" Resumed {words.plural(body.resumes, 'time')}."
    if kind == "confirmed" and body is not None and body.running_version:
        text = f"Confirmed on {body.running_version}."
    if kind == "heartbeat" and body is not None and body.restart is not None:
        text, tone = _restarted(body.restart), "warn"
    if code:
        text = f"{text.rstrip('.:')}: {words.reason(code)}."
    detail = body.detail if body is not None else ""
    return TimelineRow(int(row["received_at"]), icon, tone, text, code=code, detail=detail)


def _restarted(told: Restart) -> str:
    cause = words.RESTARTS.get(told.cause, words.RESTARTS["unknown"])
    return f"Restarted although nobody had asked for it: {cause}."


def _body(row: Row) -> EventBody | None:
    try:
        return msgspec.json.decode(str(row["body"]), type=EventBody)
    except msgspec.MsgspecError:
        return None


def _slots(device: Row, versions: dict[int, str]) -> tuple[Slot, ...]:
    out = []
    for name, slot in sorted(slots_now(device).items()):
        digest = str(slot.get("sha256") or "")
        counter = int(slot.get("release_counter") or 0)
        state = _SLOT_STATES.get(str(slot.get("state")), "empty")
        runs = slot.get("state") == "confirmed" and (
            digest == device["running_sha256"] if digest and device["running_sha256"] else False
        )
        if runs:
            state = "running"
        known = versions.get(counter, "factory image" if digest else "")
        version = str(slot.get("version") or "") or known
        notes = {"staged": "inert until a permit", "other": "confirmed, a way back"}
        out.append(Slot(str(name), state, version, counter or None, digest, notes.get(state, "")))
    return tuple(out)


def _contract(
    conn: Connection, device: Row, standing: Standing, events: list[Row]
) -> tuple[tuple[CheckRow, ...], str]:
    """Return the contract of what it runs or tries, with the device's last word on each check."""
    release = web_queries.release_by_counter(
        conn, str(device["product"]), int(device["running_counter"])
    )
    target = standing.target
    name = target.version if target is not None else ""
    if release is not None:
        hardware = Hardware(str(device["model"]), int(device["rev"]))
        for artifact in web_queries.artifacts(conn, int(release["id"])):
            found = msgspec.convert(artifact["target"], type=ReleaseTarget)
            if compatible(found.hardware, hardware):
                target, name = found, str(release["version"])
    if target is None:
        return (), ""
    said: dict[str, str] = {}
    for row in reversed(events):
        body = _body(row)
        for result in body.health if body is not None else ():
            said[result.name] = "passed" if result.ok else "failed"
    return contracts.rows(target.health, said), name


def _identity(device: Row, now: int) -> tuple[Pair, ...]:
    pairs = [
        Pair("Variant", str(device["variant"]), "model and revision"),
        Pair("Channel", str(device["channel"])),
        Pair("Region", str(device["region"])),
        Pair("Connectivity", str(device["connectivity"])),
        Pair("Device key", key_words(str(device["key_sha256"])), "compare with the device"),
        Pair("Digest of it", str(device["key_sha256"]), _key_note(device), mono=True),
        Pair("New key", *_new_key(device, now)),
        Pair("Security floor", str(device["security_floor"])),
        Pair("Agent", str(device["agent"])),
        Pair("Restarts", *_restarts(device, now)),
        Pair("Enrolled", words.when(int(device["enrolled_at"]), now)),
    ]
    shown = {pair.term.lower() for pair in pairs}
    own = [(str(key), value) for key, value in device["attributes"].items() if key not in shown]
    pairs += [
        Pair(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for key, value in sorted(own)[:12]
    ]
    return tuple(pair for pair in pairs if pair.value)


def _restarts(device: Row, now: int) -> tuple[str, str]:
    """Return how many restarts nobody had asked for, and the last one."""
    if not device["restarts"]:
        return "", ""
    cause = words.RESTARTS.get(str(device["restart_cause"]), words.RESTARTS["unknown"])
    count = words.plural(int(device["restarts"]), "time")
    return count, f"that nobody asked for; {cause}, {words.when(int(device['restarted_at']), now)}"


def _key_note(device: Row) -> str:
    generation = int(device["key_gen"])
    return str(device["keytype"]) + (f", generation {generation}" if generation > 1 else "")


def _new_key(device: Row, now: int) -> tuple[str, str]:
    """Return what is expected of a device's next key, and a note; empty where nothing is."""
    if device["key_promised"] and device["key_promised_until"] > now:
        until = words.duration(int(device["key_promised_until"]) - now)
        return str(device["key_promised"]), f"approved, expected within {until}"
    return ("ordered", "the device makes it when it asks next") if device["rekey"] else ("", "")


def _failed_boot(row: Row | None) -> str:
    if row is None:
        return ""
    body = _body(row)
    if body is None:
        return str(row["reason"] or "")
    head = f"{row['reason'] or row['kind']}: {body.detail}".rstrip(": ")
    return f"{head}\n{body.log[-1500:]}" if body.log else head
