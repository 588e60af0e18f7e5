"""Devices of one site share power, network and people: how often they may speak together, and how many may be out there at once."""

from typing import Final

import msgspec

#: A site is believed again when so many devices in a row were well there after it paid: one where half fail for its own reasons would be by chance in 1 of 32.
_WELL_AGAIN: Final = 5


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored."""

    paid: dict[str, int]
    well: dict[str, int]
    counts: dict[str, list[int]]


class Sites:
    """What is known of each site. A name is empty where devices stand alone; then nothing here concerns them."""

    def __init__(self, rest_s: int) -> None:
        self._rest_s = rest_s
        self._paid: dict[str, int] = {}
        #: Devices in a row that confirmed, of permits granted after the site paid.
        self._well: dict[str, int] = {}
        #: Permits whose outcome is open, and healthy devices.
        self._counts: dict[str, list[int]] = {}

    def room(self, site: str, now: int, *, doubted: bool = False) -> int:
        """Return how many more permits a site may have: as many out as are healthy there, one to begin with; none to begin with for a day after a failure.

        Args:
            site: which; not empty.
            now: unix seconds.
            doubted: the release is suspected, so permits go where somebody learns from them: few at once, since a site pays once for all that are out; none for
                a day after it paid; and then as many as it takes to be believed again.
        """
        pending, healthy = self._of(site)
        resting = self._rests(site, now)
        most = max(0 if resting else 1, healthy)
        if doubted:
            shown = self._well.get(site, 0) if self.blocked(site, now) else 0
            most = 0 if resting else min(most, _WELL_AGAIN - shown)
        return max(0, most - pending)

    def begin(self, site: str, count: int) -> None:
        """Count permits."""
        self._of(site)[0] += count

    def end(self, site: str, count: int) -> None:
        """Count outcomes that are neither good nor bad."""
        if site:
            self._of(site)[0] -= count

    def bad(self, site: str, count: int) -> None:
        """Count devices that failed or fell silent."""
        self.end(site, count)
        self._well.pop(site, None)

    def well(self, site: str, count: int, granted_at: int) -> None:
        """Count devices that confirmed."""
        self.end(site, count)
        self._of(site)[1] += count
        if granted_at > self._paid.get(site, granted_at):
            self._well[site] = self._well.get(site, 0) + count

    def left(self, site: str) -> None:
        """Count a healthy device less."""
        if site:
            self._of(site)[1] -= 1

    def blocked(self, site: str, now: int) -> bool:
        """Say whether permits of a site are no evidence now: for a day after it paid, and until enough devices in a row have been well there since."""
        if not site or site not in self._paid:
            return False
        return self._rests(site, now) or self._well.get(site, 0) < _WELL_AGAIN

    def pays(self, site: str, granted_at: int, now: int) -> int:
        """Return how many of a site's failures are evidence: one for all permits that were granted since it last paid."""
        if granted_at <= self._paid.get(site, -1):
            return 0
        self._paid[site] = now
        self._well.pop(site, None)
        return 1

    def _rests(self, site: str, now: int) -> bool:
        return bool(site) and now < self._paid.get(site, -self._rest_s) + self._rest_s

    def _of(self, site: str) -> list[int]:
        return self._counts.setdefault(site, [0, 0])

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return what is to be stored."""
        return Packed(paid=self._paid, well=self._well, counts=self._counts)

    def restore(self, packed: Packed) -> None:
        """Take up what was stored."""
        self._paid, self._well = dict(packed.paid), dict(packed.well)
        self._counts = {site: list(counts) for site, counts in packed.counts.items()}
