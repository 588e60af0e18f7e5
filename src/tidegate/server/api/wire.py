"""Bodies of the REST API: what is sent in, and what lists and small answers look like. Everything sent in is untrusted and bounded."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tidegate.core.audit.entry import AuditRow
from tidegate.core.calendar import Entry
from tidegate.core.protocol import Envelope
from tidegate.server.advisories import AdvisoryFacts, FindingFacts
from tidegate.server.approvals import RequestFacts
from tidegate.server.audit import Signed
from tidegate.server.auth import AccountFacts, SessionFacts, TokenFacts
from tidegate.server.claims import ClaimFacts
from tidegate.server.components import DeviceFacts, PartFacts
from tidegate.server.components import GroupFacts as ComponentGroup
from tidegate.server.device_logs import LogFacts
from tidegate.server.facts import (
    DeviceRecord,
    EventFacts,
    LogLine,
    ReleaseFacts,
    RolloutFacts,
    UpdateFacts,
)
from tidegate.server.grants import GrantFacts
from tidegate.server.groups import GroupFacts
from tidegate.server.listing import Participant, Straggler
from tidegate.server.people.consent import ConsentFacts
from tidegate.server.preauthorized import BATCH_MAX, Listed

Reason = Annotated[str, Meta(max_length=1000)]
Short = Annotated[str, Meta(max_length=128)]
Query = Annotated[str, Meta(max_length=1000)]
Seconds = Annotated[int, Meta(ge=0, le=1 << 40)]


GrantTexts = Annotated[list[Annotated[str, Meta(max_length=112)]], Meta(max_length=32)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body in which an unknown key is a mistake."""


class Act(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a verb on a rollout. To isolate and readmit: `variant`, or `where` with a query."""

    reason: Reason = ""
    variant: Short = ""
    where: Query = ""
    ring: Short = ""


class FallbackOrder(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `fallback`: `to` a release (empty = the newest that is allowed), `cohort` exposed, variant:NAME or query:QUERY."""

    to: Short = ""
    cohort: Query = "exposed"
    reason: Reason = ""


class NewGrant(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of drafting a grant: `to` a release (empty = the newest live one below), `cohort` as in `fallback`, or `everybody`; `valid_s` 0 = 14 days."""

    to: Short = ""
    cohort: Query = "exposed"
    everybody: bool = False
    valid_s: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    reason: Reason = ""


class SignedGrant(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of handing in a grant that enough holders of incident keys signed."""

    envelope: Envelope
    reason: Reason = ""


class Decision(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of approving or declining."""

    reason: Reason = ""


class Because(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of what only takes a reason."""

    reason: Reason = ""


class LetIn(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `accept`: `fingerprint` is what the device shows (eight words, or 16 to 64 hex digits); empty = it was not compared."""

    reason: Reason = ""
    fingerprint: Annotated[str, Meta(max_length=200)] = ""


class Swap(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `swap`: the fingerprint of the key that is to come."""

    fingerprint: Annotated[str, Meta(min_length=1, max_length=200)]
    reason: Reason = ""


class FactoryList(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entries of a factory's list; each is checked by itself."""

    entries: Annotated[list[Any], Meta(min_length=1, max_length=BATCH_MAX)]


class Preauthorized(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the factory's list."""

    items: list[Listed]
    next: str | None = None


class Tags(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `tags`: the whole list."""

    tags: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=64)]


class NewClaim(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim token to be made."""

    product: Annotated[str, Meta(min_length=1, max_length=64)]
    name: Annotated[str, Meta(max_length=64)] = ""
    max_count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    expires_in_s: Annotated[int, Meta(ge=60, le=10 * 366 * 86_400)] = 30 * 86_400
    group: Annotated[str, Meta(max_length=64)] | None = None
    serials: (
        Annotated[list[Annotated[str, Meta(max_length=128)]], Meta(max_length=10_000)] | None
    ) = None


class NewGroup(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group to be made: by query, or static."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    query: Query | None = None
    devices: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=100_000)] = []


class GroupChange(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What replaces a group's query or list of devices."""

    query: Query | None = None
    devices: (
        Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=100_000)] | None
    ) = None


class NewAccount(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account to be made; without a password one is made of words and returned once. `grants` (`ROLE`, `ROLE@SCOPE`) go before `role`."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Annotated[str, Meta(max_length=32)] = "viewer"
    grants: GrantTexts = []
    person: Annotated[str, Meta(max_length=64)] = ""
    password: Annotated[str, Meta(max_length=256)] | None = None


class AccountChange(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes about an account."""

    role: Annotated[str, Meta(max_length=32)] | None = None
    grants: GrantTexts | None = None
    person: Annotated[str, Meta(max_length=64)] | None = None
    disabled: bool | None = None


class NewToken(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API token to be made. `grants` go before `role`; `addresses` are the networks from which alone it is good."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Annotated[str, Meta(max_length=32)] = "viewer"
    grants: GrantTexts = []
    addresses: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=32)] = []
    expires_in_s: Annotated[int, Meta(ge=60, le=10 * 366 * 86_400)] | None = None


# --- answers ---------------------------------------------------------------------------------------------------------


class Rollouts(msgspec.Struct, frozen=True, kw_only=True):
    """A page of rollouts; `next` is the cursor of the one behind it."""

    items: list[RolloutFacts]
    next: str | None = None


class LogLines(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a rollout's story, in order."""

    items: list[LogLine]
    next: str | None = None


class Participants(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a rollout's updates, in the order of their devices."""

    items: list[Participant]
    next: str | None = None


class Stragglers(msgspec.Struct, frozen=True, kw_only=True):
    """A page of devices that were ordered back and have not gone."""

    items: list[Straggler]
    next: str | None = None


class Releases(msgspec.Struct, frozen=True, kw_only=True):
    """A page of releases, newest first."""

    items: list[ReleaseFacts]
    next: str | None = None


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """A page of parts of releases.

    Attributes:
        devices: have at least one of the parts found, of this page or another.
        unknown: devices that run a release whose parts nobody told.
        items_in_all: parts found.
        near: names like the one asked for, where nothing bears it.
    """

    devices: int
    unknown: int
    items_in_all: int
    items: list[PartFacts]
    groups: list[ComponentGroup]
    near: list[str]
    next: str | None = None


class ComponentDevices(msgspec.Struct, frozen=True, kw_only=True):
    """A page of devices that have a part. It may be short, and still have a next one."""

    items: list[DeviceFacts]
    next: str | None = None


class Advisories(msgspec.Struct, frozen=True, kw_only=True):
    """A page of advisories, the latest import first."""

    items: list[AdvisoryFacts]
    next: str | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what an advisory concerns."""

    items: list[FindingFacts]
    next: str | None = None


class SignerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that may have signed provenance."""

    keytype: str
    public: str
    keyid: str


class RuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What channels of a product demand of a release's origin (`core.supply.policy.IngestRule`)."""

    product: str
    channels: tuple[str, ...]
    needs: tuple[str, ...]
    builders: tuple[str, ...]
    sources: tuple[str, ...]
    signers: tuple[SignerFacts, ...]


class IngestRules(msgspec.Struct, frozen=True, kw_only=True):
    """Every rule."""

    items: list[RuleFacts]
    next: str | None = None


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """A page of devices. It may be short, or empty, and still have a next one: a request looks at a bounded number of devices."""

    items: list[DeviceRecord]
    next: str | None = None


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what devices reported."""

    items: list[EventFacts]
    next: str | None = None


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """Logs of a device after failures, newest first, without their texts."""

    items: list[LogFacts]
    next: str | None = None


class Updates(msgspec.Struct, frozen=True, kw_only=True):
    """Every update of a device, newest first."""

    items: list[UpdateFacts]
    next: str | None = None


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """An incident's grants of a way back."""

    items: list[GrantFacts]
    next: str | None = None


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """Every group."""

    items: list[GroupFacts]
    next: str | None = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Every claim, without secrets."""

    items: list[ClaimFacts]
    next: str | None = None


class MadeClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that was made; `token` is shown this once."""

    name: str
    token: str
    claim: ClaimFacts


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """Requests for approval. `single_operator` = nobody else could approve: the two-person rule cannot be kept."""

    items: list[RequestFacts]
    single_operator: bool
    next: str | None = None


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Every account."""

    items: list[AccountFacts]
    next: str | None = None


class MadeAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account that was made or got a new password; `password` is shown this once."""

    name: str
    password: str


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time way to sign in: open `path` on this server within an hour. `url` is for browsers; empty where the server does not know how they reach it."""

    name: str
    ticket: str
    path: str
    url: str = ""


class ConsentList(msgspec.Struct, frozen=True, kw_only=True):
    """Requests for consent, the newest first."""

    items: list[ConsentFacts]
    next: str | None = None


class SessionList(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions, the newest first."""

    items: list[SessionFacts]
    next: str | None = None


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Every API token, without secrets."""

    items: list[TokenFacts]
    next: str | None = None


class MadeToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was made; `token` is shown this once."""

    name: str
    token: str
    facts: TokenFacts


class AuditRows(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the operators' log."""

    items: list[AuditRow]
    next: str | None = None


class AuditCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A signed head of the operators' log: `root` (hex) over `size` rows. `note` is the text that was signed, `verifier` the key on one line."""

    size: int
    root: str
    at: int
    note: str
    verifier: str


class AuditCheckpoints(msgspec.Struct, frozen=True, kw_only=True):
    """A page of signed heads, oldest first."""

    items: list[Signed]
    next: str | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a rollout is where it is, line by line."""

    rollout: str
    lines: list[str]


class WouldAct(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb would reach; nothing was written."""

    name: str
    verb: str
    devices: int


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """The version of a role that is published now."""

    role: str
    version: int


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and what they may do."""

    name: str
    role: str
    kind: str
    may: list[str]
    grants: tuple[str, ...] = ()


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """It is done."""

    name: str
    text: str


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """What lapses when, the earliest first. `one_signer` names products that one person can release to everybody."""

    at: int
    items: tuple[Entry, ...]
    one_signer: tuple[str, ...] = ()
