"""Scenarios of root and of keys that change. The names are those of the TUF project's suite; what they do is written anew."""

from dataclasses import dataclass

from tests.conformance.repository import key, when
from tests.conformance.scenario import Lab, scenario
from tests.conformance.top_roles import ALL, replace_signature, started
from tests.unit.core.repo import DAY, NOW

# --- root ---------------------------------------------------------------------------------------------------------------


@scenario()
def invalid_initial_root(lab: Lab, _: None) -> None:
    lab.repo.edit("root", lambda plain: plain["signed"].pop("version"))
    lab.init()
    assert not lab.refresh()
    assert lab.repo.asked == []


@scenario()
def unsigned_initial_root(lab: Lab, _: None) -> None:
    other = lab.repo.sign("targets")
    sig = other.partition(b'"sig": "')[2].partition(b'"')[0].decode()
    lab.repo.edit("root", lambda plain: replace_signature(plain, 0, sig))
    lab.init()
    assert not lab.refresh()
    assert lab.repo.asked == []


@dataclass(frozen=True)
class Keys:
    """Who may sign, how many must, and who does."""

    keys: tuple[int, ...]
    threshold: int
    sigs: tuple[int, ...]


FIVE = (0, 1, 2, 3, 4)
ROTATIONS: dict[str, tuple[bool, tuple[Keys, ...]]] = {
    "one for another": (
        True,
        (Keys((1,), 1, (1,)), Keys((2,), 1, (1, 2)), Keys((2,), 1, (2,))),
    ),
    "with signatures of strangers": (
        True,
        (Keys((1,), 1, (3, 1, 4)), Keys((2,), 1, (3, 2, 1)), Keys((2,), 1, (3, 2, 4))),
    ),
    "three of five in any company": (
        True,
        (Keys(FIVE, 3, (0, 2, 4)), Keys(FIVE, 3, (0, 4, 1)), Keys(FIVE, 3, (0, 1, 3))),
    ),
    "one of five leaves": (True, (Keys(FIVE, 3, (0, 2, 4)), Keys((0, 1, 3, 4, 5), 3, (0, 4, 1)))),
    "one of five leaves, with a step between": (
        True,
        (
            Keys(FIVE, 3, (0, 2, 4)),
            Keys((0, 1, 3, 4, 5), 3, (0, 2, 4, 5)),
            Keys((0, 1, 3, 4, 5), 3, (0, 4, 5)),
        ),
    ),
    "all of five leave": (
        True,
        (
            Keys(FIVE, 3, (0, 2, 4)),
            Keys((5, 6, 7, 8, 9), 3, (0, 2, 4, 5, 6, 7)),
            Keys((5, 6, 7, 8, 9), 3, (5, 6, 7)),
        ),
    ),
    "threshold up among three": (True, (Keys((1, 2, 3), 1, (1,)), Keys((1, 2, 3), 2, (1, 2)))),
    "threshold down among three": (
        True,
        (Keys((1, 2, 3), 2, (1, 2)), Keys((1, 2, 3), 1, (1, 2)), Keys((1, 2, 3), 1, (1,))),
    ),
    "threshold up with a new key": (True, (Keys((1,), 1, (1,)), Keys((1, 2), 2, (1, 2)))),
    "old key missing": (False, (Keys((1,), 1, (1,)), Keys((2,), 1, (2, 3, 4)))),
    "new key missing": (False, (Keys((1,), 1, (1,)), Keys((2,), 1, (1, 3, 4)))),
    "too few of the new five": (
        False,
        (Keys(FIVE, 3, (0, 2, 4)), Keys((0, 1, 3, 4, 5), 3, (0, 2, 4))),
    ),
    "too few of the old five": (
        False,
        (Keys(FIVE, 3, (0, 2, 4)), Keys((0, 1, 3, 4, 5), 3, (0, 4, 5))),
    ),
    "threshold up and not met": (False, (Keys((1, 2, 3), 1, (1,)), Keys((1, 2, 3), 2, (2,)))),
    "threshold down and the old one not met": (
        False,
        (Keys((1, 2, 3), 2, (1, 2)), Keys((1, 2, 3), 1, (1,))),
    ),
}


@scenario(ROTATIONS)
def root_rotation(lab: Lab, case: tuple[bool, tuple[Keys, ...]]) -> None:
    good, steps = case
    repo = lab.repo
    repo.drop("root")
    repo.root.version = 0
    for step in steps:
        repo.only_keys("root", *(key(f"r{n}") for n in step.keys), threshold=step.threshold)
        repo.signers["root"] = [key(f"r{n}") for n in step.sigs]
        repo.publish("root")
    repo.publish("targets", "snapshot", "timestamp")
    lab.init()
    assert lab.refresh() == good
    assert lab.body("root") == repo.files[f"{len(steps) - (not good)}.root.json"]


OTHER_ROTATIONS: dict[str, tuple[bool, Keys]] = {
    "another key": (True, Keys((2,), 1, (2,))),
    "with signatures of strangers": (True, Keys((1,), 1, (3, 1, 4))),
    "by a stranger": (False, Keys((2,), 1, (1, 3, 4))),
    "two of three and a stranger": (False, Keys((0, 1, 3, 4, 5), 3, (0, 2, 4))),
    "two of three": (False, Keys((0, 1, 3, 4, 5), 3, (0, 4))),
    "0 2 4": (True, Keys(FIVE, 3, (0, 2, 4))),
    "0 4 1": (True, Keys(FIVE, 3, (0, 4, 1))),
    "0 1 3": (True, Keys(FIVE, 3, (0, 1, 3))),
    "1 2 3": (True, Keys(FIVE, 3, (1, 2, 3))),
    "2 3 4": (True, Keys(FIVE, 3, (2, 3, 4))),
}


@scenario(OTHER_ROTATIONS)
def non_root_rotations(lab: Lab, case: tuple[bool, Keys]) -> None:
    good, keys = case
    lab.init()
    for role in ("timestamp", "snapshot", "targets"):
        signers = [key(f"{role} {n}") for n in keys.keys]
        lab.repo.only_keys(role, *signers, threshold=keys.threshold)
        lab.repo.signers[role] = [key(f"{role} {n}") for n in keys.sigs]
        lab.repo.publish(*ALL)
        assert lab.refresh() == good
        if good:
            assert lab.body(role) == lab.repo.served(role)


@scenario()
def root_expired(lab: Lab, _: None) -> None:
    started(lab)
    lab.repo.publish("root")
    assert lab.refresh()
    lab.repo.root.expires = when(NOW - DAY)
    lab.repo.publish(*ALL)
    assert not lab.refresh()
    assert lab.roles() == [("root", 3), ("snapshot", 1), ("targets", 1), ("timestamp", 1)]


@scenario()
def expired_local_root(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.root.expires = when(NOW + 7 * DAY)
    lab.repo.publish("root")
    assert lab.refresh()
    lab.repo.root.expires = when(NOW + 21 * DAY)
    lab.repo.publish("root")
    assert lab.refresh(days=18)
    assert lab.version("root") == 3
