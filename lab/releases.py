"""The releases of the lab's products: a factory image, and for each thing that can be wrong with an image a product that gets it."""

import hashlib
from typing import Final

from lab import images
from lab.plant import Plant, Release, health

GOOD: Final = "good"
#: A good one, too, and its loader gets a single try: what is not written down when the power goes is lost for good.
ONE_TRY: Final = "one-try"
#: What the lab's releases are like; each is the newest of the product `lab-NAME`.
KINDS: Final = (GOOD, ONE_TRY, "panic", "hang", "no-kernel", "dead-service", "errors")
#: Boots that the loader grants a release.
TRIES: Final = 3
#: Errors a hour that the contract allows where errors are counted.
_ERRORS_PER_HOUR: Final = 3600


def product(kind: str) -> str:
    """Return the product that gets this kind of release."""
    return f"lab-{kind}"


def factory(kind: str) -> Release:
    """Return what the product's devices leave the factory with. It is whole and well, the same for all, and not on the server."""
    image = images.slot("1.1.0")
    with image.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Release(product(kind), 1, "1.1.0", image, digest)


def newest(plant: Plant, kind: str) -> Release:
    """Publish the product's newest release and send it to all of its devices."""
    image = images.slot("1.2.0", "" if kind in (GOOD, ONE_TRY) else kind)
    limits = {"error_rate_per_hour": _ERRORS_PER_HOUR} if kind == "errors" else {}
    contract = health(timeout_s=6 if kind == "dead-service" else 300, **limits)
    release = plant.release(2, image, contract, product(kind))
    plant.roll_out(release, tries=1 if kind == ONE_TRY else TRIES)
    return release
