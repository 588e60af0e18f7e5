"""The signed head of the log, in the form that transparency logs share: C2SP `tlog-checkpoint`, in a C2SP `signed-note`, with Ed25519.

Any tool that speaks these reads ours, and can be asked to sign beside us. Lines that others add to the text are kept and covered by the signature, and
signatures by keys that are not known are skipped, as the specification has it. The key's name is the origin.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import msgspec

from tidegate.core.errors import PublisherError
from tidegate.core.keys import PublicKey, Signer, public_key
from tidegate.core.merkle import WIDTH

#: Bytes of a note, at most.
NOTE_MAX: Final = 8 << 10
#: How a line of a server's own log begins that holds a checkpoint.
LOG_LINE: Final = "audit checkpoint:"
_SIGNATURES_MAX: Final = 16
_LINES_MAX: Final = 64
_KEY_ID: Final = 4
_ED25519: Final = b"\x01"
_DASH: Final = "\u2014 "
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_NAME: Final = re.compile(r"[^\s+\x00-\x20\x7f]{1,100}")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A head of the log: that of its first `size` rows is `root`. `more`: lines of the text that others added."""

    origin: str
    size: int
    root: bytes
    more: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.more)
        return "".join(f"{one}\n" for one in lines)


class Verifier(msgspec.Struct, frozen=True):
    """A key under its name in notes. Two keys of one name are two verifiers."""

    name: str
    key: PublicKey

    @property
    def key_id(self) -> bytes:
        """The four bytes before its signatures."""
        encoded = self.name.encode() + b"\n" + _ED25519 + bytes.fromhex(self.key.public)
        return hashlib.sha256(encoded).digest()[:_KEY_ID]

    @property
    def text(self) -> str:
        """The key on one line, as other tools take it: name, key id, type and key."""
        body = base64.b64encode(_ED25519 + bytes.fromhex(self.key.public)).decode()
        return f"{self.name}+{self.key_id.hex()}+{body}"


def origin_of(tenant: str) -> str:
    """Return the name of a tenant's log, and of the keys that sign its checkpoints."""
    return f"tidegate/audit/{tenant}"


def sign(checkpoint: Checkpoint, signer: Signer) -> str:
    """Return a checkpoint as a signed note.

    Raises:
        PublisherError: `audit.key`: not an Ed25519 key.
    """
    verifier = verifier_of(checkpoint.origin, signer.public)
    made = base64.b64encode(verifier.key_id + signer.sign(checkpoint.text.encode())).decode()
    return f"{checkpoint.text}\n{_DASH}{verifier.name} {made}\n"


def verifier_of(name: str, key: PublicKey) -> Verifier:
    """Return a key as a verifier of notes.

    Raises:
        PublisherError: `audit.key`: not Ed25519, the only kind that notes here are signed with.
    """
    if key.keytype != "ed25519":
        raise PublisherError("audit.key", f"{key.keytype}: checkpoints are signed with Ed25519")
    return Verifier(name, key)


def read_verifier(line: str) -> Verifier:
    """Read a key from one line, `name+id+base64` (untrusted).

    Raises:
        PublisherError: `audit.key`.
    """
    name, plus, rest = line.strip().partition("+")
    key_id, second, body = rest.partition("+")
    try:
        raw = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PublisherError("audit.key", "not a verifier key: name+id+base64") from error
    if not (plus and second and _NAME.fullmatch(name)) or raw[:1] != _ED25519 or len(raw) != 33:
        raise PublisherError("audit.key", "not an Ed25519 verifier key: name+id+base64")
    made = Verifier(name, public_key("ed25519", raw[1:].hex()))
    if made.key_id.hex() != key_id:
        raise PublisherError("audit.key", "the key id does not belong to the key")
    return made


def peek(note: str) -> Checkpoint:
    """Return what a note (untrusted) says, without asking who signed it: to find its size, or to show it as a claim.

    Raises:
        PublisherError: `audit.unreadable`.
    """
    return _split(note)[0]


def open_note(note: str, verifiers: Collection[Verifier], origin: str | None = None) -> Checkpoint:
    """Return the checkpoint in a note (untrusted) that a known key signed.

    Args:
        note: text, signatures and all.
        verifiers: keys that are believed.
        origin: the log that it must be of; None = whatever log the key signs for.

    Raises:
        PublisherError: `audit.unreadable`, or `audit.checkpoint_forged`: no known key signed it, or one that should have did not.
    """
    checkpoint, signatures = _split(note)
    if origin is not None and checkpoint.origin != origin:
        raise PublisherError("audit.checkpoint_forged", f"a checkpoint of {checkpoint.origin}")
    text, good = checkpoint.text.encode(), False
    for name, raw in signatures:
        for one in verifiers:
            if one.name != name or one.key_id != raw[:_KEY_ID]:
                continue
            if not one.key.verifies(raw[_KEY_ID:], text):
                raise PublisherError("audit.checkpoint_forged", f"size {checkpoint.size}")
            good = True
    if not good:
        raise PublisherError("audit.checkpoint_forged", f"size {checkpoint.size}: no known key")
    return checkpoint


def log_line(note: str) -> str:
    """Return a note on one line, for a server's own log: `notes_in` finds it there."""
    return f"{LOG_LINE} {base64.b64encode(note.encode()).decode()}"


def notes_in(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, note) of every note in a text (untrusted): notes one after the other, and lines of a server's log. What is neither is skipped.

    Holds one note at a time. Nothing is verified.
    """
    text: list[str] = []
    signatures: list[str] = []
    began, gap = 1, False
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        _, found, rest = line.partition(LOG_LINE)
        if found:
            yield number, _unpacked(rest)
        elif line.startswith(_DASH) and text and (gap or signatures):
            signatures = [*signatures, line][-_SIGNATURES_MAX - 1 :]
        else:
            if signatures:
                yield began, _note(text, signatures)
            if signatures or (gap and line):
                text, signatures, gap = [], [], False
            if not line:
                gap = bool(text)
                continue
            if not text:
                began = number
            text = [*text, line][-_LINES_MAX:]
    if signatures:
        yield began, _note(text, signatures)


def _note(text: list[str], signatures: list[str]) -> str:
    return "".join(f"{one}\n" for one in (*text, "", *signatures))


def _unpacked(text: str) -> str:
    words = text.split()
    try:
        return base64.b64decode(words[0].strip('"},\\'), validate=True).decode()
    except (binascii.Error, ValueError, IndexError):
        return ""


def _split(note: str) -> tuple[Checkpoint, list[tuple[str, bytes]]]:
    if len(note) > NOTE_MAX:
        raise PublisherError("audit.unreadable", f"a note of more than {NOTE_MAX} characters")
    if any(one < " " and one != "\n" for one in note):
        raise PublisherError("audit.unreadable", "a note with control characters")
    text, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise PublisherError("audit.unreadable", "not a signed note")
    signatures = [_signature(one) for one in tail[:-1].split("\n")]
    if len(signatures) > _SIGNATURES_MAX:
        raise PublisherError("audit.unreadable", "too many signatures")
    lines = text.split("\n")
    if len(lines) < 3 or not all(lines) or not _SIZE.fullmatch(lines[1]):
        raise PublisherError("audit.unreadable", "not a checkpoint: origin, size and root")
    root = _unb64(lines[2])
    if len(root) != WIDTH:
        raise PublisherError("audit.unreadable", f"the root is not {WIDTH} bytes")
    made = Checkpoint(origin=lines[0], size=int(lines[1]), root=root, more=tuple(lines[3:]))
    return made, signatures


def _signature(line: str) -> tuple[str, bytes]:
    name, gap, body = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not gap or not _NAME.fullmatch(name):
        raise PublisherError("audit.unreadable", "not a signature line")
    raw = _unb64(body)
    if len(raw) <= _KEY_ID:
        raise PublisherError("audit.unreadable", "a signature without a key id")
    return name, raw


def _unb64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PublisherError("audit.unreadable", "not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise PublisherError("audit.unreadable", "base64 in another spelling")
    return raw
