"""Put a real device together from its configuration: the one place where ports meet their implementations."""

from tidegate.agent import bootloaders
from tidegate.agent.board import RealBoard, SystemClock
from tidegate.agent.checkup import errors
from tidegate.agent.checkup.examiner import Apart
from tidegate.agent.files import StateDirectory
from tidegate.agent.inhibit import listed
from tidegate.agent.net.link import HttpTransport
from tidegate.agent.ports import Meters
from tidegate.agent.runner import Ports
from tidegate.agent.settings import Config

#: In the state directory: what of earlier boots was reported.
SEEN_NAME = "pstore.seen"


def ports(config: Config) -> Ports:
    """Make this device's ports.

    Raises:
        ConfigError: a back end that is not there, or cannot work like this.
        DeviceError: the state directory cannot be used.
    """
    loader = bootloaders.load(config.bootloader, config.boot_settings)

    def connect(origin: str) -> HttpTransport:
        return HttpTransport(origin, ca=config.ca, timeout_s=config.timeout_s, narrow=config.narrow)

    directory = config.inhibit_dir
    clock = SystemClock()
    seen = f"{config.state_dir}/{SEEN_NAME}"
    return Ports(
        clock=clock,
        storage=StateDirectory(config.state_dir),
        board=RealBoard(config.slots, loader, config.reboot, seen, config.beside),
        transport=connect(config.url),
        examiner=Apart(config.url),
        errors=errors.counter(config.errors),
        meters=_meters(config),
        inhibitors=lambda: listed(directory, clock.monotonic()),
        connect=connect,
    )


def _meters(config: Config) -> Meters | None:
    if not config.meters:
        return None
    # Loaded where there are any.
    from tidegate.agent.checkup import meters

    return meters.meters(config.meters)
