"""Attacks on the TUF layer, each played against both clients: the numbered rows are those of the attack list of the design, the others its further list.

An attack is a story whose last step is what counts. It says with which code ours must refuse that step, or None when both take it at this layer (and something
above must stop it, which is named).
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.conformance.repository import key, when
from tests.conformance.scenario import Lab
from tests.unit.core.repo import DAY, NOW
from tuf.api.metadata import DelegatedRole, MetaFile  # type: ignore[attr-defined]

ROLE = "product/a"
PATH = "a/1/image"
ALL = ("root", ROLE, "targets", "snapshot", "timestamp")
ONLINE = ("snapshot", "timestamp")


@dataclass(frozen=True)
class Attack:
    """One story, and the code with which ours refuses its last step."""

    name: str
    run: Callable[[Lab], None]
    code: str | None


ATTACKS: dict[str, Attack] = {}


def attack(name: str, code: str | None) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    def register(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        assert name not in ATTACKS
        ATTACKS[name] = Attack(name, run, code)
        return run

    return register


def shop(lab: Lab, *, refreshed: bool = True) -> None:
    """One product with a role of its own, and a client that has its image."""
    repo = lab.repo
    repo.delegate("targets", DelegatedRole(ROLE, [], 1, True, ["a/*/*"]))
    repo.add_target(ROLE, PATH, b"image 1")
    repo.publish(ROLE, "targets", "snapshot", "timestamp")
    lab.init()
    if refreshed:
        assert lab.download(PATH)


# --- bytes and keys: rows 1a to 1d --------------------------------------------------------------------------------------


@attack("1a other bytes of the same length", "sig.mix_and_match")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.artifacts[PATH] = b"image X"
    lab.download(PATH)


@attack("1b a whole repository by foreign keys", "sig.unknown_key")
def _(lab: Lab) -> None:
    shop(lab)
    for role in ("timestamp", "snapshot", "targets", ROLE):
        lab.repo.signers[role] = [key(f"foreign {role}")]
    lab.repo.publish(ROLE, "targets", "snapshot", "timestamp")
    lab.download(PATH)


@attack("1c a root by one of two", "sig.threshold")
def _(lab: Lab) -> None:
    lab.repo.only_keys("root", key("r1"), key("r2"), threshold=2)
    lab.repo.publish("root", version=1)
    shop(lab)
    lab.repo.signers["root"].pop()
    lab.repo.publish("root")
    lab.refresh()


@attack("1d one key under two ids meets a threshold of two", "sig.threshold")
def _(lab: Lab) -> None:
    shop(lab)
    alias(lab, "timestamp")
    lab.refresh()


def alias(lab: Lab, role: str) -> None:
    """Let root demand two keys for a role, and list one key under two ids."""
    repo = lab.repo
    repo.only_keys(role, key("once"), threshold=2)
    keyid = repo.root.roles[role].keyids[0]
    repo.root.keys["alias"] = type(repo.root.keys[keyid]).from_dict(
        "alias", repo.root.keys[keyid].to_dict()
    )
    repo.root.roles[role].keyids.append("alias")
    repo.publish("root", role)
    repo.edit(
        role, lambda plain: plain["signatures"].append({**plain["signatures"][0], "keyid": "alias"})
    )


@attack("one key in two spellings meets a threshold of two", "sig.threshold")
def _(lab: Lab) -> None:
    shop(lab)
    repo = lab.repo
    repo.only_keys("timestamp", key("once", "ed25519"), threshold=2)
    keyid = repo.root.roles["timestamp"].keyids[0]
    plain = repo.root.keys[keyid].to_dict()
    plain["keyval"]["public"] = plain["keyval"]["public"].upper()
    repo.root.keys["alias"] = type(repo.root.keys[keyid]).from_dict("alias", plain)
    repo.root.roles["timestamp"].keyids.append("alias")
    repo.publish("root", "timestamp")
    repo.edit(
        "timestamp", lambda p: p["signatures"].append({**p["signatures"][0], "keyid": "alias"})
    )
    lab.refresh()


# --- what is old: rows 2a to 2e -----------------------------------------------------------------------------------------


@attack("2a an old timestamp", "sig.rollback")
def _(lab: Lab) -> None:
    shop(lab)
    old = lab.repo.files["timestamp.json"]
    lab.repo.publish("timestamp")
    lab.refresh()
    lab.repo.files["timestamp.json"] = old
    lab.refresh()


def back_to_the_first(lab: Lab) -> None:
    """With the online keys, have snapshot name the product's first document again."""
    lab.repo.snapshot.meta[f"{ROLE}.json"] = MetaFile(1)
    lab.repo.publish(*ONLINE)


@attack("2b online keys bring an old product document back", "sig.rollback")
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.publish(ROLE, *ONLINE)
    lab.download(PATH)
    back_to_the_first(lab)
    lab.download(PATH)


@attack("2c the same after timestamp and snapshot were lost in a power cut", "sig.rollback")
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.publish(ROLE, *ONLINE)
    lab.download(PATH)
    lab.damage("timestamp", "snapshot")
    back_to_the_first(lab)
    lab.download(PATH)


@attack("2d an old repository for a device that lost everything", None)  # nonce and floor
def _(lab: Lab) -> None:
    shop(lab)
    old = dict(lab.repo.files)
    lab.repo.publish(ROLE, "targets", *ONLINE)
    lab.download(PATH)
    lab.forget()
    lab.repo.files = old
    lab.init()
    lab.refresh()


@attack("2e an old target that is still listed", None)  # release counter and floor
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.add_target(ROLE, "a/2/image", b"image 2")
    lab.repo.publish(ROLE, *ONLINE)
    lab.download("a/2/image")
    lab.download(PATH)


# --- fast forward: row 3 ------------------------------------------------------------------------------------------------


def jump(lab: Lab, role: str) -> None:
    """With the online keys, have a role far ahead; then the honest repository comes back."""
    shop(lab)
    far = 1 << 40
    if role == "timestamp":
        lab.repo.publish("timestamp", version=far)
    elif role == "snapshot":
        lab.repo.publish("snapshot", version=far)
        lab.repo.publish("timestamp")
    else:
        lab.repo.publish(ROLE, version=far)
        lab.repo.publish(*ONLINE)
    lab.download(PATH)
    lab.repo.publish(role, version=7)
    if role != "timestamp":
        if role != "snapshot":
            lab.repo.publish("snapshot", version=8)
        lab.repo.publish("timestamp", version=9)


@attack("3a a timestamp far ahead blocks the honest one", "sig.rollback")
def _(lab: Lab) -> None:
    jump(lab, "timestamp")
    lab.download(PATH)


@attack("3b until root replaces the timestamp key", None)
def _(lab: Lab) -> None:
    jump(lab, "timestamp")
    lab.repo.rotate("timestamp")
    lab.repo.publish("root")
    lab.repo.publish("timestamp", version=9)
    lab.download(PATH)


@attack("3c a snapshot far ahead blocks the honest one", "sig.rollback")
def _(lab: Lab) -> None:
    jump(lab, "snapshot")
    lab.download(PATH)


@attack("3d a product far ahead blocks the honest one", "sig.rollback")
def _(lab: Lab) -> None:
    jump(lab, ROLE)
    lab.download(PATH)


@attack("3e a product far ahead, root replaces the timestamp key", None)
def _(lab: Lab) -> None:
    jump(lab, ROLE)
    lab.repo.rotate("timestamp")
    lab.repo.publish("root")
    lab.repo.publish("timestamp", version=9)
    lab.download(PATH)


@attack("3f a snapshot far ahead, root replaces the snapshot key", None)
def _(lab: Lab) -> None:
    jump(lab, "snapshot")
    lab.repo.rotate("snapshot")
    lab.repo.publish("root")
    lab.repo.publish("snapshot", version=7)
    lab.repo.publish("timestamp", version=9)
    lab.download(PATH)


@attack("3g a product far ahead, root replaces both keys", None)
def _(lab: Lab) -> None:
    jump(lab, ROLE)
    lab.repo.rotate("timestamp")
    lab.repo.rotate("snapshot")
    lab.repo.publish("root")
    lab.repo.publish("snapshot", version=8)
    lab.repo.publish("timestamp", version=9)
    lab.download(PATH)


# --- clocks: row 4 ------------------------------------------------------------------------------------------------------


@attack("4a a frozen repository, seen by a right clock", "sig.expired")
def _(lab: Lab) -> None:
    shop(lab)
    lab.refresh(days=31)


@attack("4b a frozen repository, seen by a clock of 1970", None)  # core.clock and the nonce
def _(lab: Lab) -> None:
    shop(lab)
    lab.refresh(days=-NOW / DAY)


@attack("4c an old repository, a blank device, a clock of 1970", None)  # core.clock and the nonce
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.refresh(days=-NOW / DAY)


@attack("4d a clock ten years ahead", "sig.expired")
def _(lab: Lab) -> None:
    shop(lab)
    lab.refresh(days=3650)


# --- mixed: row 5 -------------------------------------------------------------------------------------------------------


@attack("5a an old product document under the new name", "sig.mix_and_match")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    old = lab.repo.served(ROLE)
    lab.repo.publish(ROLE, *ONLINE)
    lab.repo.files[lab.repo.name_of(ROLE)] = old
    lab.download(PATH)


@attack("5b an old snapshot under the new name", "sig.mix_and_match")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    old = lab.repo.served("snapshot")
    lab.repo.publish(ROLE, *ONLINE)
    lab.repo.files[lab.repo.name_of("snapshot")] = old
    lab.download(PATH)


# --- endless data: row 6 ------------------------------------------------------------------------------------------------


def endless(role: str) -> None:
    @attack(f"6 endless data as {role}", "sig.oversized")
    def _(lab: Lab) -> None:
        shop(lab, refreshed=False)
        if role == "root":
            lab.repo.files["2.root.json"] = b" " * (6 << 20)
        else:
            lab.repo.files[lab.repo.name_of(role)] = b" " * (6 << 20)
        lab.download(PATH)


for _role in ("root", "timestamp", "snapshot", "targets", ROLE):
    endless(_role)


@attack("6 endless data as a target", "sig.oversized")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.artifacts[PATH] = b" " * (6 << 20)
    lab.download(PATH)


@attack("6 a signed role of 300 kB", "sig.oversized")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.signed[ROLE].unrecognized_fields["x"] = "x" * 300_000
    lab.repo.publish(ROLE, *ONLINE)
    lab.download(PATH)


@attack("6 a signed root of 100 kB", "sig.oversized")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.root.unrecognized_fields["x"] = "x" * 100_000
    lab.repo.publish("root")
    lab.refresh()


@attack("6b a bomb of values, signed", "sig.oversized")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.signed[ROLE].unrecognized_fields["x"] = [[]] * 60_000
    lab.repo.publish(ROLE, *ONLINE)
    lab.download(PATH)


# --- the rest of the rows -----------------------------------------------------------------------------------------------


@attack("10 another product's key signs my path", "sig.director_mismatch")
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.delegate("targets", DelegatedRole("product/b", [], 1, True, ["b/*/*"]))
    lab.repo.add_target("product/b", "a/9/image", b"of b")
    lab.repo.publish("product/b", "targets", *ONLINE)
    lab.download("a/9/image")


@attack("11 an image for other hardware", None)  # the device's own rules
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    target = lab.repo.add_target(ROLE, "a/2/image", b"for b")
    target.unrecognized_fields["custom"] = {"hardware": "another"}
    lab.repo.publish(ROLE, *ONLINE)
    lab.download("a/2/image")


@attack("13 a target's path leads out of the folder", None)
def _(lab: Lab) -> None:
    shop(lab, refreshed=False)
    lab.repo.delegate("targets", DelegatedRole("up", [], 1, False, ["../../*"]))
    lab.repo.add_target("up", "../../escape", b"content")
    lab.repo.publish("up", "targets", *ONLINE)
    lab.download("../../escape")
    assert lab.downloaded() == [b"content"]


@attack(
    "14 a root is hidden on the way", None
)  # until the old one expires; the assignment names the least root
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.rotate("snapshot")
    lab.repo.publish("root")
    del lab.repo.files["2.root.json"]
    lab.refresh()


@attack("15 a product's key was taken away by targets", "sig.unknown_key")
def _(lab: Lab) -> None:
    shop(lab)
    delegations = lab.repo.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles[ROLE].keyids = []
    lab.repo.targets.add_key(key("its new key").public_key, ROLE)
    lab.repo.publish("targets", *ONLINE)
    lab.download(PATH)


@attack(
    "16 a server restored from a backup", "sig.rollback"
)  # core.metadata.online_version avoids it
def _(lab: Lab) -> None:
    shop(lab)
    old = dict(lab.repo.files)
    for _n in range(4):
        lab.repo.publish("timestamp")
    lab.refresh()
    lab.repo.files = old
    lab.refresh()


@attack("17 a version of 10^30", "sig.malformed")
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.publish("timestamp", version=10**30)
    lab.refresh()


@attack("18 a product nobody signed again is blocked", "sig.expired")
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.signed[ROLE].expires = when(NOW - 1)
    lab.repo.publish(ROLE, *ONLINE)
    lab.download(PATH)


@attack("18 and no other one", None)
def _(lab: Lab) -> None:
    shop(lab)
    lab.repo.delegate("targets", DelegatedRole("product/b", [], 1, True, ["b/*/*"]))
    lab.repo.add_target("product/b", "b/1/image", b"of b")
    lab.repo.signed[ROLE].expires = when(NOW - 1)
    lab.repo.publish("product/b", ROLE, "targets", *ONLINE)
    lab.download("b/1/image")


@attack("19 the kept root is lost", None)
def _(lab: Lab) -> None:
    shop(lab)
    lab.damage("root")
    lab.refresh()
