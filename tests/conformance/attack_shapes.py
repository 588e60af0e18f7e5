"""Attacks on the shape of documents: what a stranger can put beside what is signed, and what a holder of keys should never sign."""

import json
from collections.abc import Callable
from typing import Any

from tests.conformance.attacks import ALL, ATTACKS, ONLINE, PATH, attack, shop
from tests.conformance.repository import key
from tests.conformance.scenario import Lab
from tuf.api.metadata import DelegatedRole  # type: ignore[attr-defined]

__all__ = ["ATTACKS"]


# --- signatures and keys ------------------------------------------------------------------------------------------------


@attack("a signature stands twice", "sig.malformed")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.edit("timestamp", lambda plain: plain["signatures"].extend(plain["signatures"]))
    lab.refresh()


def thresholds(value: object, code: str) -> None:
    @attack(f"a threshold of {value}", code)
    def _(lab: Lab) -> None:
        shop(lab)
        lab.repo.root.roles["timestamp"].threshold = value  # type: ignore[assignment]
        lab.repo.publish("root")
        lab.refresh()


thresholds(0, "sig.malformed")
thresholds(-1, "sig.malformed")
thresholds(True, "sig.malformed")
thresholds(1_000_000, "sig.malformed")
thresholds("1", "sig.malformed")


@attack("a key of an unknown kind", "sig.malformed")
def _(lab: Lab) -> None:
    shop(lab)
    one = next(iter(lab.repo.root.keys.values()))
    one.keytype = one.scheme = "quantum"
    lab.repo.publish("root")
    lab.refresh()


@attack("a key under an id that is no hash of it", None)
def _(lab: Lab) -> None:
    shop(lab)
    one = key("named")
    one.public_key.keyid = "my-key"
    lab.repo.only_keys("timestamp", one)
    lab.repo.publish("root", "timestamp")
    lab.refresh()


@attack("the signature of the version before", "sig.threshold")
def _(lab: Lab) -> None:
    shop(lab)
    before = json.loads(lab.repo.served("timestamp"))["signatures"]
    lab.repo.publish("timestamp")
    lab.repo.edit("timestamp", lambda plain: plain.update(signatures=before))
    lab.refresh()


@attack("the same document in other bytes", None)
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.files["timestamp.json"] = json.dumps(
        json.loads(lab.repo.files["timestamp.json"]), indent=9
    ).encode()
    lab.refresh()


# --- shapes -------------------------------------------------------------------------------------------------------------


def shape(name: str, body: Callable[[bytes], bytes], code: str = "sig.malformed") -> None:
    @attack(f"a timestamp with {name}", code)
    def _(lab: Lab) -> None:
        shop(lab)
        lab.repo.publish("timestamp")
        lab.repo.files["timestamp.json"] = body(lab.repo.files["timestamp.json"])
        lab.refresh()


def also(**fields: object) -> Callable[[bytes], bytes]:
    """Add fields outside what is signed: a stranger can."""
    return lambda body: json.dumps({**json.loads(body), **fields}).encode()


shape("no byte", lambda _body: b"")
shape("a zero byte behind it", lambda body: body + b"\0")
shape("a byte order mark", lambda body: b"\xef\xbb\xbf" + body)
shape("invalid UTF-8", lambda body: body[:-1] + b', "x": "\xff"}')
shape("half a surrogate pair", lambda body: body[:-1].rstrip() + b', "x": "\\ud800"}')
shape("a float beside what is signed", also(x=1.5))
shape("NaN beside what is signed", lambda body: body.rstrip()[:-1] + b', "x": NaN}')
shape("a key twice", lambda body: body.replace(b'"signed":{', b'"signed":{"version":9,', 1))
shape(
    "lists 5,000 deep",
    lambda body: body.rstrip()[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
)
shape("lists 40 deep", lambda body: body.rstrip()[:-1] + b', "x": ' + b"[" * 40 + b"]" * 40 + b"}")
shape("a huge number beside it", lambda body: body.rstrip()[:-1] + b', "x": ' + b"9" * 4000 + b"}")
shape("a captive portal's page", lambda _body: b"<html>sign in</html>")
shape("a list", lambda _body: b"[]")
shape("a truncated end", lambda body: body[:-20])


def signed_field(
    name: str, role: str, change: Callable[[dict[str, Any]], object], code: str
) -> None:
    """A document whose holder signed nonsense."""

    @attack(name, code)
    def _(lab: Lab) -> None:
        shop(lab)
        signed = lab.repo.signed[role]
        before = type(signed).to_dict

        def to_dict() -> dict[str, Any]:
            plain: dict[str, Any] = before(signed)
            change(plain)
            return plain

        signed.to_dict = to_dict
        chain = {"timestamp": (), "snapshot": ("timestamp",)}.get(role, ONLINE)
        lab.repo.publish(role, *([] if role == "root" else chain))
        lab.download(PATH)


signed_field(
    "a signed version true", "timestamp", lambda p: p.update(version=True), "sig.malformed"
)
signed_field("a signed version 0", "timestamp", lambda p: p.update(version=0), "sig.malformed")
signed_field("a signed version -1", "timestamp", lambda p: p.update(version=-1), "sig.malformed")
signed_field(
    "a signed version as text", "timestamp", lambda p: p.update(version="9"), "sig.malformed"
)
signed_field(
    "another type, signed", "snapshot", lambda p: p.update(_type="timestamp"), "sig.malformed"
)
signed_field(
    "an unknown type, signed", "targets", lambda p: p.update(_type="mirrors"), "sig.malformed"
)
signed_field(
    "a specification of the future",
    "timestamp",
    lambda p: p.update(spec_version="9.0.0"),
    "sig.malformed",
)
signed_field(
    "an expiry that is no date",
    "timestamp",
    lambda p: p.update(expires="tomorrow"),
    "sig.malformed",
)


def meta(name: str, change: Callable[[dict[str, Any]], object], code: str | None) -> None:
    """What timestamp says of snapshot, signed."""

    def edit(plain: dict[str, Any]) -> None:
        change(plain["meta"]["snapshot.json"])

    @attack(f"timestamp names snapshot with {name}", code)
    def _(lab: Lab) -> None:
        lab.repo.complete = True
        shop(lab)
        lab.repo.publish("snapshot")
        timestamp = lab.repo.timestamp
        before = type(timestamp).to_dict

        def to_dict() -> dict[str, Any]:
            plain: dict[str, Any] = before(timestamp)
            edit(plain)
            return plain

        timestamp.to_dict = to_dict  # type: ignore[method-assign]
        lab.repo.publish("timestamp")
        lab.refresh()


meta("a length of 0", lambda one: one.update(length=0), "sig.oversized")
meta("a length below its own", lambda one: one.update(length=10), "sig.oversized")
meta("a length above its own", lambda one: one.update(length=99_999), "sig.mix_and_match")
meta(
    "a second digest that is wrong",
    lambda one: one["hashes"].update(sha512="0" * 128),
    "sig.mix_and_match",
)
meta(
    "a digest of an unknown kind only",
    lambda one: one.update(hashes={"crc32": "00"}),
    "sig.malformed",
)
meta(
    "a digest of an unknown kind too", lambda one: one["hashes"].update(crc32="00"), "sig.malformed"
)
meta("no digest at all", lambda one: one.update(hashes={}), "sig.malformed")
meta("a version of true", lambda one: one.update(version=True), "sig.malformed")


# --- delegations --------------------------------------------------------------------------------------------------------


@attack("a delegation to a role named root", "sig.malformed")
def _(lab: Lab) -> None:
    shop(lab)
    targets = lab.repo.targets
    before = type(targets).to_dict

    def to_dict() -> dict[str, Any]:
        plain: dict[str, Any] = before(targets)
        plain["delegations"]["roles"][0]["name"] = "root"
        return plain

    targets.to_dict = to_dict  # type: ignore[method-assign]
    lab.repo.publish("targets", *ONLINE)
    lab.refresh()


def chain(lab: Lab, count: int) -> None:
    shop(lab, refreshed=False)
    above = "targets"
    for n in range(count):
        lab.repo.delegate(above, DelegatedRole(f"d{n}", [], 1, False, ["deep"]))
        above = f"d{n}"
    lab.repo.add_target(above, "deep", b"content")
    lab.repo.publish(*(f"d{n}" for n in range(count)), "targets", *ONLINE)
    lab.download("deep")


@attack("32 delegations deep", None)
def _(lab: Lab) -> None:
    chain(lab, 32)


@attack("33 delegations deep", "sig.oversized")
def _(lab: Lab) -> None:
    chain(lab, 33)


@attack("delegations in a circle", "sig.director_mismatch")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    for above, name in (("targets", "one"), ("one", "two"), ("two", "one")):
        lab.repo.delegate(above, DelegatedRole(name, [], 1, False, ["x"]))
    lab.repo.publish("one", "two", "targets", *ONLINE)
    lab.download("x")


@attack("a delegated path * is one step only", "sig.director_mismatch")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.delegate("targets", DelegatedRole("all", [], 1, False, ["*"]))
    lab.repo.add_target("all", "b/1/image", b"of nobody")
    lab.repo.publish("all", "targets", *ONLINE)
    lab.download("b/1/image")


# --- chains of roots ----------------------------------------------------------------------------------------------------


def roots(count: int) -> None:
    @attack(f"a chain of {count} roots", None)
    def _(lab: Lab) -> None:
        shop(lab, refreshed=False)
        for _n in range(count - 1):
            lab.repo.publish("root")
        lab.refresh()


roots(256)
roots(258)


@attack("a root that skips a version", "sig.rollback")
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.publish("root", version=3)
    lab.repo.files["2.root.json"] = lab.repo.files.pop("3.root.json")
    lab.refresh()


@attack("the same root again under the next name", "sig.rollback")
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.files["2.root.json"] = lab.repo.files["1.root.json"]
    lab.refresh()


@attack("a root signed by its new keys only", "sig.unknown_key")
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.rotate("root")
    lab.repo.publish("root")
    lab.refresh()


@attack("a root signed by its old keys only", "sig.unknown_key")
def _(lab: Lab) -> None:
    shop(lab)
    old = lab.repo.signers["root"]
    lab.repo.rotate("root")
    lab.repo.signers["root"] = old
    lab.repo.publish("root")
    lab.refresh()


@attack("consistent_snapshot is switched off", None)
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.root.consistent_snapshot = False
    lab.repo.publish(*ALL)
    for role in ("snapshot", "targets"):
        lab.repo.files[f"{role}.json"] = lab.repo.served(role)
        del lab.repo.files[lab.repo.name_of(role)]
    lab.refresh()
