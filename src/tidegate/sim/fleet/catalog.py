"""Policies by name: Tidegate's presets and the peers, default-like and tuned.

A peer can be named with its settings: `hawkbit:1/10/50/100:error=5:success=80`, `mender:1@0/10@48/100@120`,
`aws:50:factor=2:every=1000:percent=10:least=100`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.sim.fleet.gate import Gate
from tidegate.sim.fleet.peers.aws import AwsJobs
from tidegate.sim.fleet.peers.hawkbit import HawkBit
from tidegate.sim.fleet.peers.mender import Mender, big_bang
from tidegate.sim.fleet.policy import Policy

#: Named settings. `hawk80` … `aws10` are those of the study's named failure modes; `*_tuned` the best found on the tune half of random draws.
NAMED: Final[Mapping[str, str]] = {
    "hawk80": "hawkbit:1/10/50/100:error=5:success=80",
    "hawk93": "hawkbit:1/10/50/100:error=5:success=93",
    "hawk_tuned": "hawkbit:0.2/2/10/50/100:error=5:success=93",
    "mender": "mender:1@0/10@24/50@72/100@120",
    "mender_tuned": "mender:1@0/10@48/50@96/100@120",
    "aws10": "aws:2:factor=1.5:every=4000:percent=10:least=200",
    "aws5": "aws:2:factor=1.5:every=4000:percent=5:least=200",
    "aws_default": "aws:50:factor=2:every=1000:percent=10:least=100",
    "aws_tuned": "aws:1:factor=1.5:every=0.04:percent=5:least=100",
}


def ours() -> tuple[str, ...]:
    """Return the names of Tidegate's own presets."""
    return tuple(PRESETS)


def peers() -> tuple[str, ...]:
    """Return the names of the peers' settings."""
    return ("bigbang", *NAMED)


def grid() -> tuple[str, ...]:
    """Return settings of the peers to choose the tuned ones from, on draws of the tune half: 30 in all."""
    hawkbit = [
        f"hawkbit:{shares}:error={error}:success={success}"
        for shares in ("1/10/50/100", "0.2/2/10/50/100")
        for error in (2, 3, 5, 10)
        for success in (80, 93)
    ]
    mender = [
        f"mender:{shares[0]}@0/{shares[1]}@{hours[0]}/{shares[2]}@{hours[1]}/100@{hours[2]}"
        for shares in ((1, 10, 50), (0.2, 5, 25))
        for hours in ((24, 72, 120), (48, 96, 120), (72, 120, 144))
    ]
    aws = [
        f"aws:{base}:factor=1.5:every=0.04:percent={percent}:least={least}"
        for base in (1, 10)
        for percent in (3, 5)
        for least in (50, 100)
    ]
    return (*hawkbit, *mender, *aws)


def usual(*, drawn: bool) -> tuple[str, ...]:
    """Return what a comparison runs when nobody says: our presets, and the peers of the named modes or of random draws."""
    if drawn:
        return (
            "normal",
            "careful",
            "fast",
            "hawk80",
            "hawk_tuned",
            "aws_default",
            "aws_tuned",
            "mender",
            "mender_tuned",
        )
    return ("normal", "fast", "bigbang", "hawk80", "hawk93", "mender", "aws10", "aws5")


def make_policy(name: str) -> Policy:
    """Make a policy by its name.

    Raises:
        ConfigError: `config.invalid`: no such policy, or settings that it does not take.
    """
    if name in PRESETS:
        return Gate(PRESETS[name])
    if name == "bigbang":
        return big_bang()
    text = NAMED.get(name, name)
    kind, _, rest = text.partition(":")
    if kind not in _MAKERS or not rest:
        near = did_you_mean(name, (*ours(), *peers()))
        raise ConfigError("config.invalid", f'policy "{name[:80]}" is not known{near}')
    try:
        return _MAKERS[kind](*rest.split(":"))
    except (ValueError, TypeError) as error:
        like = next(one for one in NAMED.values() if one.startswith(kind))
        message = f'policy "{name[:80]}" cannot be read: write it like "{like}"'
        raise ConfigError("config.invalid", message) from error


def _hawkbit(shares: str, *settings: str) -> Policy:
    found = _settings(settings, {"error": 5.0, "success": 80.0})
    cumulated = tuple(float(one) for one in shares.split("/"))
    if sorted(set(cumulated)) != list(cumulated) or cumulated[-1] != 100 or cumulated[0] <= 0:
        raise ValueError(shares)
    return HawkBit(cumulated, error=int(found["error"]), success=int(found["success"]))


def _mender(phases: str, *settings: str) -> Policy:
    _settings(settings, {})
    pairs = [one.partition("@") for one in phases.split("/")]
    return Mender(tuple((float(share), float(hour)) for share, _, hour in pairs))


def _aws(base: str, *settings: str) -> Policy:
    usual = {"factor": 1.0, "every": 1000.0, "percent": 10.0, "least": 100.0}
    found = _settings(settings, usual)
    return AwsJobs(
        float(base),
        factor=found["factor"],
        every=found["every"],
        percent=found["percent"],
        least=int(found["least"]),
    )


def _settings(given: tuple[str, ...], usual: Mapping[str, float]) -> dict[str, float]:
    found = dict(usual)
    for one in given:
        key, _, value = one.partition("=")
        if key not in found:
            raise ValueError(key)
        found[key] = float(value)
    return found


_MAKERS: Final[Mapping[str, Callable[..., Policy]]] = {
    "hawkbit": _hawkbit,
    "mender": _mender,
    "aws": _aws,
}
