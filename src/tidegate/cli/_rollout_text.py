"""How rollouts are told: tables and lines for people, and exit codes for scripts."""

from typing import Final

import click

from tidegate.cli._people import when
from tidegate.cli.output import Output, printable, render_table
from tidegate.client import structs
from tidegate.core.errors import RequestError

_BAD: Final = frozenset({"halted", "falling_back"})
_OTHER: Final = frozenset({"cancelled", "superseded"})
_COUNTS: Final = (
    "offered",
    "exposed",
    "confirmed",
    "reverted",
    "failed_after",
    "lost",
    "failed_before",
)


def told(out: Output, done: structs.Outcome) -> None:
    """Say what became of an act; one that waits for somebody else ends with exit code 7."""
    out.note(printable(f"{done.name} is {done.state}: {done.text}"))
    for line in _warned(done):
        out.note(line)
    if done.request is not None:
        out.note(
            f"Next, by somebody else: tidegate rollout approve {done.name.partition('.back')[0]}"
        )
        raise click.exceptions.Exit(_waiting(out, done))


def looked(found: structs.Outcome) -> list[str]:
    """Return what an act would come to, from a dry run of it."""
    return [printable(f"It would come to: {found.text}"), *_warned(found)]


def _warned(found: structs.Outcome) -> list[str]:
    return [printable(f"  warning  {one}") for one in found.warnings]


def _waiting(out: Output, done: structs.Outcome) -> int:
    if out.json:
        out.data("act/1", done, "")
    return 7


def waited(found: structs.RolloutFacts, target: str) -> int | None:
    """Return the exit code once there is nothing more to wait for, else None."""
    kind, _, ring = target.partition(":")
    if kind == "ring":
        names = [one.name for one in found.policy.rings]
        if ring not in names:
            raise RequestError("request.not_found", f"no ring {ring}; there are {', '.join(names)}")
        if found.rings[names.index(ring)].state in {"passed", "skipped"}:
            return 0
    elif found.state == target:
        return 0
    if found.state in _BAD:
        return 10
    return 11 if found.state in _OTHER | {"completed"} else None


def reach(name: str, found: structs.Reach) -> list[str]:
    """Return the lines of a dry run: rings by variant, who is skipped, warnings."""
    variants = sorted({one for ring in found.rings for one in ring.variants})
    rows = [
        [
            ring.name,
            ", ".join(f"{share / 100:g} %" for share in ring.shares_bp),
            f"{ring.matched:,}",
            f"{ring.offered:,}",
            *(f"{ring.variants.get(one, 0):,}" for one in variants),
        ]
        for ring in found.rings
    ]
    lines = [
        f"Rollout {name} would bring {found.release} to {found.offered:,} of {found.matched:,} matching devices.",
        "",
        render_table(["ring", "steps", "matched", "offered", *variants], rows),
    ]
    if found.asked:
        lines.append(
            f"Who matches is counted; the rest is estimated from {found.asked:,} devices chosen by lot, ring by ring."
        )
    if found.skipped:
        total = sum(one.count for one in found.skipped)
        lines += ["", f"Skipped {total:,}"]
        lines += [f"  {one.count:>7,}  {one.code:20} {one.text}" for one in found.skipped]
    if found.mandate:
        lines += ["", "Signed schedule (mandate): whatever the rings say, at most"]
        lines += [
            f"  {one.devices:>7,}  {one.share_bp / 100:g} %  from {when(one.not_before)} UTC"
            for one in found.mandate
        ]
    lines += ["", *lints(found)] if found.lints else []
    return "\n".join(lines).split("\n")


def lints(found: structs.Reach) -> list[str]:
    """Return what speaks against a rollout, a line each, with its code."""
    return [f"  {one.level:<8} {one.text} ({one.code})" for one in found.lints]


def way_back(found: structs.WayBack) -> list[str]:
    """Return the lines of a fallback's dry run."""
    return [
        f"Would bring {found.resident:,} devices back to {found.to} (counter {found.counter}).",
        f"  {found.resident:>6,}  have it in the other slot: no download, one reboot each",
        f"  {found.already:>6,}  are on it already",
        f"  {found.elsewhere:>6,}  do not hold it: they stay"
        + (", unless a grant brings them back (incident grant draft)" if found.elsewhere else ""),
        *(f"  warning  {one}" for one in found.warnings),
    ]


def way_back_by_grant(found: structs.WayBack) -> list[str]:
    """Return the lines of a drafted grant: whom it would bring back."""
    count = found.resident + found.elsewhere
    return [
        f"Would bring {count:,} devices back to {found.to} (counter {found.counter}).",
        f"  {found.resident:>6,}  have it in the other slot: no download, one reboot each",
        f"  {found.elsewhere:>6,}  download it",
        *(f"  warning  {one}" for one in found.warnings),
    ]


def shown(found: structs.RolloutFacts, evidence: structs.EvidenceFacts) -> list[str]:
    """Return the lines of `rollout show`."""
    sums: dict[str, dict[str, int]] = {}
    for one in evidence.tallies:
        ring = sums.setdefault(one.ring, dict.fromkeys(("audience", "pending", *_COUNTS), 0))
        for key in ring:
            ring[key] += int(getattr(one, key))
    rows = []
    for spec, progress in zip(found.policy.rings, found.rings, strict=True):
        ring = sums.get(spec.name, dict.fromkeys(("audience", "pending", *_COUNTS), 0))
        rows.append(
            [
                spec.name,
                progress.state,
                *(
                    f"{ring[key]:,}"
                    for key in ("audience", "offered", "exposed", "pending", "confirmed")
                ),
                f"{ring['failed_before'] + ring['failed_after']:,}",
                f"{ring['reverted']:,}",
                f"{ring['lost']:,}",
            ]
        )
    heads = [
        "ring",
        "state",
        "devices",
        "offered",
        "permitted",
        "underway",
        "confirmed",
        "failed",
        "reverted",
        "lost",
    ]
    lines = [
        f"{found.name}   {found.state}   {found.release} (counter {found.release_counter})",
        "",
        *render_table(heads, rows).split("\n"),
        "",
    ]
    lines += [f"{one.name:<9} {one.text}" for one in found.terms]
    if found.mandate:
        lines += [
            f"{'' if number else 'Mandate':<9} {one.bucket_max / 100:g} % from {when(one.not_before)} UTC"
            for number, one in enumerate(found.mandate.steps)
        ]
    fixed = found.snapshot
    if fixed:
        gone = f", {fixed.gone:,} gone since" if fixed.gone else ""
        at = when(fixed.fixed_at)
        lines.append(f"Snapshot  of {fixed.devices:,} devices, {at} UTC{gone}; newcomers are out")
    lines += [f"ISOLATED  {one}" for one in found.isolated]
    if found.halted_at and found.state in _BAD:
        lines.append(
            f"HALTED    by {found.halted_by}, {when(found.halted_at)} UTC: {found.halt_reason}"
        )
    lines += [f"Incident  {one}" for one in found.incidents]
    lines += [f"Fallback  {one}" for one in found.children]
    if found.way_back:
        lines.append(
            f"Way back  {found.way_back}: tidegate rollout fallback {found.name} --dry-run"
        )
    because = [one.text for one in found.because]
    lines += [f"Why here  {because[0]}"] if because else []
    return lines + [f"          {one}" for one in because[1:]]
