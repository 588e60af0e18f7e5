"""The control plane as the demo's operator sees it: the admin API, with its answers as small typed views."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from tidegate.core.errors import RequestError
from tidegate.rollout.model import Tally
from tidegate.sim.api import Api


@dataclass(frozen=True)
class RingView:
    """One ring as the server tells it."""

    name: str
    state: str
    share_bp: int


@dataclass(frozen=True)
class RolloutView:
    """A rollout as the server tells it."""

    name: str
    state: str
    rings: tuple[RingView, ...]
    isolated: tuple[str, ...]
    tallies: Mapping[tuple[str, str], Tally]
    because: tuple[str, ...]
    gate: str
    halt_reason: str

    def count(self, name: str, *, ring: str = "", variant: str = "") -> int:
        """Sum one count over the rings and variants asked for."""
        return sum(
            getattr(tally, name)
            for (of_ring, of_variant), tally in self.tallies.items()
            if ring in {"", of_ring} and variant in {"", of_variant}
        )

    def ring(self, name: str) -> RingView:
        """Return one ring."""
        return next(one for one in self.rings if one.name == name)

    def rings_in(self, state: str) -> str:
        """Name the rings in a state, in their order."""
        return " ".join(one.name for one in self.rings if one.state == state)

    @property
    def passed(self) -> bool:
        """Say whether every ring has passed; the rollout may still wait for devices that did not come."""
        return all(one.state in {"passed", "skipped"} for one in self.rings)

    @property
    def pending(self) -> int:
        """Devices past the point of no return whose outcome is not known."""
        return sum(tally.pending for tally in self.tallies.values())

    @property
    def headline(self) -> str:
        """Say in one line where it stands."""
        rings = "  ".join(
            f"{one.name} {one.state}"
            + (f" {one.share_bp / 100:g} %" if 0 < one.share_bp < 10_000 else "")
            for one in self.rings
        )
        return (
            f"{self.state}: {rings}   {self.count('exposed')} activated, "
            f"{self.count('confirmed')} confirmed, {self.count('reverted')} reverted"
        )


class Control:
    """What an operator does, over the API."""

    def __init__(self, api: Api) -> None:
        """Use this API."""
        self.api = api
        self._tickets = count(1)

    def make_claim(self, product: str, count: int) -> str:
        """Make a claim token for `count` devices and return it."""
        asked = {"name": f"{product}-demo", "product": product, "max_count": count}
        return str(self.api.post("/claims", asked, key=f"claim-{product}")["token"])

    def sign_in_path(self, account: str = "admin") -> str:
        """Return the path of a one-time sign-in link."""
        asked = {"reason": "the demo's own browser"}
        key = f"ticket-{account}-{next(self._tickets)}"
        return str(self.api.post(f"/accounts/{account}/ticket", asked, key=key)["path"])

    def online_keys(self) -> dict[str, Any]:
        """Return the public halves of the server's online keys."""
        found: dict[str, Any] = self.api.get("/online-keys")
        return found

    def publish(self, bundle: Path) -> None:
        """Publish a signed bundle."""
        self.api.upload("/bundles", bundle)

    def roll_out(self, request: Mapping[str, Any]) -> str:
        """Create and start a rollout; returns its name."""
        answer = self.api.post("/rollouts", request, key=f"demo-{request['name']}")
        return str(answer["name"])

    def rollout(self, name: str) -> RolloutView:
        """Return where a rollout stands."""
        found = self.api.get(f"/rollouts/{name}")
        return view_of(found, _tallies(self.api.get(f"/rollouts/{name}/evidence")))

    def fall_back(self, name: str, to: str, reason: str) -> str:
        """Order the exposed devices of a rollout back to a release; returns the child rollout's name."""
        body = {"to": to, "cohort": "exposed", "reason": reason}
        answer = self.api.post(f"/rollouts/{name}/fallback", body, key=f"demo-fallback-{name}")
        return str(answer["name"])

    def cancel(self, name: str, reason: str) -> None:
        """End a rollout for good: pause it, then cancel it."""
        for verb in ("pause", "cancel"):
            body = {"reason": reason}
            self.api.post(f"/rollouts/{name}/{verb}", body, key=f"demo-{verb}-{name}")

    def running(self) -> dict[str, int]:
        """Return device id → release counter, as the server believes."""
        return {one["id"]: int(one["running_counter"]) for one in self.devices()}

    def devices(self) -> Iterator[dict[str, Any]]:
        """Yield every device."""
        yield from self.api.pages("/devices", limit=500)

    def lives(self) -> bool:
        """Say whether there are devices or releases."""
        return any(self.api.get(path, limit=1)["items"] for path in ("/devices", "/releases"))

    def device_log(self, name: str) -> list[dict[str, Any]]:
        """Return what a device reported."""
        return list(self.api.pages(f"/devices/{name}/log"))

    def incident_of(self, rollout: str) -> str | None:
        """Return the name of a rollout's incident, if there is one."""
        for one in self.api.pages("/incidents"):
            if one["rollout"] == rollout:
                return str(one["name"])
        return None

    def answer_incident(self, name: str, action: str) -> None:
        """Write the corrective action into an incident, close it and publish its report."""
        note = {"kind": "action", "text": action}
        self.api.post(f"/incidents/{name}/notes", note, key=f"demo-note-{name}")
        told = {
            "summary": "A firmware update was stopped because of a fault in it.",
            "action": action,
        }
        bodies = {"close": {"reason": action}, "publish": told}
        for verb, body in bodies.items():
            self.api.post(f"/incidents/{name}/{verb}", body, key=f"demo-{verb}-{name}")

    def recall(self, release: str, reason: str) -> None:
        """Never offer a release again."""
        self.api.post(
            f"/releases/{release}/recall", {"reason": reason}, key=f"demo-recall-{release}"
        )

    def incident_report(self, name: str) -> str:
        """Return an incident's report as text."""
        return self.api.get_text(f"/incidents/{name}/export", format="md")


def view_of(plain: Mapping[str, Any], tallies: Mapping[tuple[str, str], Tally]) -> RolloutView:
    """Make the view of a rollout's own JSON and its evidence."""
    rings = tuple(
        _ring(spec, progress)
        for spec, progress in zip(plain["policy"]["rings"], plain["rings"], strict=True)
    )
    because = plain["because"]
    return RolloutView(
        name=str(plain["name"]),
        state=str(plain["state"]),
        rings=rings,
        isolated=tuple(plain["isolated"]),
        tallies=tallies,
        because=tuple(str(one["text"]) for one in because),
        gate=str(because[0]["gate"]) if because else "",
        halt_reason=str(plain.get("halt_reason") or ""),
    )


def _ring(spec: Mapping[str, Any], progress: Mapping[str, Any]) -> RingView:
    step, shares = int(progress["step"]), spec["shares"]
    share = int(shares[step]) if 0 <= step < len(shares) else 0
    return RingView(str(spec["name"]), str(progress["state"]), share)


def _tallies(evidence: Mapping[str, Any]) -> dict[tuple[str, str], Tally]:
    found: dict[tuple[str, str], Tally] = {}
    for one in evidence["tallies"]:
        key = (str(one["ring"]), str(one["variant"]))
        try:
            known = {name: one[name] for name in Tally.__struct_fields__}
            found[key] = msgspec.convert(known, Tally)
        except (KeyError, msgspec.ValidationError) as error:
            raise RequestError("request.invalid", f"evidence not understood: {error}") from error
    return found
