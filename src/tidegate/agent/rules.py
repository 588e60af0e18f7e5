"""The device's own rules, which have the final say: one place, whether an order came from the director or an image from a stick."""

from tidegate.agent.settings import Settings
from tidegate.agent.state import SlotRecord, State
from tidegate.core.release import Component, ReleaseTarget, Running, refusal


def running_of(state: State) -> Running:
    """Return what the running slot holds, as the rules compare it."""
    record = state.slots.get(state.current, SlotRecord())
    return Running(
        release_counter=record.release_counter,
        security_version=record.security_version,
        sha256=record.sha256,
        version=record.version,
    )


def components_of(state: State, settings: Settings) -> dict[str, Component]:
    """Return what the device has beside the component in its slots: what this agent confirmed, and what the configuration says that others installed."""
    absent = SlotRecord()
    confirmed = {name: state.components.get(name, absent) for name in settings.beside}
    return settings.components | {
        name: Component(counter=one.release_counter, sha256=one.sha256)
        for name, one in confirmed.items()
    }


def own_refusal(
    state: State, settings: Settings, target: ReleaseTarget, *, fallback: bool = False
) -> str | None:
    """Return the `compat.*` reason for which this device refuses a verified target, or None (`core.release.refusal`)."""
    return refusal(
        target,
        hardware=settings.hardware,
        channel=settings.channel,
        running=running_of(state),
        floor=state.floor,
        agent=settings.agent,
        components=components_of(state, settings),
        fallback=fallback,
        resume_min=state.resume_min.get(settings.product, 0),
    )
