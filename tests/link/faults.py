"""The ways in which a link lies, as faults of the proxy, with the reason that each must end with."""

import datetime as dt
import ipaddress
import itertools
import ssl
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.link.device import SIZE
from tests.link.proxy import Answer, Fault, Wire, honest


def cut(count: int, *, rst: bool = False) -> Fault:
    """End after `count` bytes of body, with a close or with a reset."""

    def fault(wire: Wire, answer: Answer) -> bool:
        wire.send(answer.head())
        wire.body(answer.body[:count])
        if rst:
            wire.reset()
        return False

    return fault


def no_answer(*, rst: bool = False, part: int = 0) -> Fault:
    """End before the head, or within it."""

    def fault(wire: Wire, answer: Answer) -> bool:
        wire.send(answer.head()[:part])
        if rst:
            wire.reset()
        return False

    return fault


def stall(count: int) -> Fault:
    """Fall silent after so much of the answer's body; 0: before its head."""

    def fault(wire: Wire, answer: Answer) -> bool:
        if count:
            wire.send(answer.head())
            wire.body(answer.body[:count])
        wire.stay()
        return False

    return fault


def drip(count: int) -> Fault:
    """A byte every now and then, from byte `count` on."""

    def fault(wire: Wire, answer: Answer) -> bool:
        wire.send(answer.head())
        wire.body(answer.body[:count])
        wire.stay(drip=answer.body[count : count + 1])
        return False

    return fault


def headers(**changes: str | None) -> Fault:
    """All of the body under another head."""

    def fault(wire: Wire, answer: Answer) -> bool:
        wire.send(answer.head(**changes))
        wire.body(answer.body)
        return False

    return fault


def longer(by: int) -> Fault:
    """Promise so much more, or less, than there is."""

    def fault(wire: Wire, answer: Answer) -> bool:
        wire.send(answer.head(content_length=str(len(answer.body) + by)))
        wire.body(answer.body)
        return False

    return fault


def corrupt(at: int) -> Fault:
    """Turn one bit over, at this byte of the payload (from its end if negative), without a word."""

    def fault(wire: Wire, answer: Answer) -> bool:
        body = bytearray(answer.body)
        where = at - answer.first if at >= 0 else len(body) + at
        if 0 <= where < len(body):
            body[where] ^= 1
        wire.send(answer.head())
        wire.body(bytes(body))
        return False

    return fault


def status(line: str, body: bytes = b"", **more: str) -> Fault:
    """Another answer altogether."""

    def fault(wire: Wire, answer: Answer) -> bool:
        given = {"content-length": str(len(body))}
        given.update({name.replace("_", "-"): value for name, value in more.items()})
        wire.send(Answer(line, given, b"").head() + body)
        return True

    return fault


def endless(first: bytes, again: bytes) -> Fault:
    """Send `first`, then `again` for ever."""

    def fault(wire: Wire, answer: Answer) -> bool:
        wire.send(first)
        # An end all the same, far beyond any bound: a device without one must turn red, not hang.
        for _ in itertools.repeat(None, (128 << 20) // len(again)):
            wire.send(again)
        return False

    return fault


def ranged(shift: int = 0, total: int = 0, **more: str) -> Fault:
    """A range that begins elsewhere, or is of another whole."""

    def fault(wire: Wire, answer: Answer) -> bool:
        first, whole = answer.first + shift, answer.first + len(answer.body)
        told = f"bytes {first}-{whole - 1}/{whole + total}"
        wire.send(answer.head(content_range=told, **more))
        wire.body(answer.body)
        return False

    return fault


def range_ignored(wire: Wire, answer: Answer) -> bool:
    """Say 200 to a range."""
    told = Answer("200 OK", answer.headers, b"")
    wire.send(told.head(content_range=None))
    wire.body(answer.body)
    return False


def multipart(wire: Wire, answer: Answer) -> bool:
    """Answer a range as several."""
    head = answer.head(content_range=None, content_type="multipart/byteranges; boundary=x")
    wire.send(head)
    wire.body(b"--x\r\ncontent-type: a/b\r\n\r\n" + answer.body)
    return False


def chunked(tail: bytes, times: int) -> Fault:
    """The whole body in chunks, then more of them."""

    def fault(wire: Wire, answer: Answer) -> bool:
        wire.send(answer.head(content_length=None, transfer_encoding="chunked"))
        wire.send(b"%x\r\n" % len(answer.body))
        wire.body(answer.body)
        wire.send(b"\r\n")
        for _ in itertools.repeat(None, times):
            wire.send(tail)
        return False

    return fault


def hurried(wire: Wire, answer: Answer) -> bool:
    """A server that says 100 and 103 before it answers, and sends the head byte by byte."""
    wire.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 3)
    for number in answer.head():
        wire.send(bytes([number]))
    wire.body(answer.body)
    return False


_PAGE: Final = b"<html><body>Log in to the hotel's network</body></html>"
_TRUNCATED: Final = "download.truncated"
_REFUSED: Final = "download.refused"
_RANGE: Final = "download.range"
_HASH: Final = "download.hash"


def _found(where: str) -> Fault:
    return status("302 Found", _PAGE, location=where)


_BY_NAME: Final[dict[str, tuple[Fault, str]]] = {
    "closed before the head": (no_answer(), _TRUNCATED),
    "reset in the head": (no_answer(rst=True, part=20), _TRUNCATED),
    "closed at byte 0": (cut(0), _TRUNCATED),
    "closed in the header": (cut(5), _TRUNCATED),
    "closed in the index": (cut(300), _TRUNCATED),
    "closed in a segment": (cut(SIZE // 3), _TRUNCATED),
    "closed before the last byte": (cut(SIZE), _TRUNCATED),
    "reset in the header": (cut(5, rst=True), _TRUNCATED),
    "reset in a segment": (cut(SIZE // 3, rst=True), _TRUNCATED),
    "promises a byte more": (longer(1), _RANGE),
    "promises a byte less": (longer(-1), _RANGE),
    "promises terabytes": (longer(1 << 42), _RANGE),
    "header flipped": (corrupt(1), _HASH),
    "index flipped": (corrupt(200), _HASH),
    "segment flipped": (corrupt(SIZE // 2), _HASH),
    "last byte flipped": (corrupt(-1), _HASH),
    "gzip on top": (headers(content_encoding="gzip"), _REFUSED),
    "redirect to a login page": (_found("http://login.invalid/"), _REFUSED),
    "redirect to itself": (_found("/d/v1/blobs/x"), _REFUSED),
    "redirect to a file": (_found("file:///etc/passwd"), _REFUSED),
    "moved for good": (status("308 Permanent Redirect", location="http://other.invalid/"), _REFUSED),
    "captive portal, 200": (status("200 OK", _PAGE, content_type="text/html"), _RANGE),
    "captive portal, 511": (status("511 Network Authentication Required", _PAGE), _REFUSED),
    "429": (status("429 Too Many Requests", retry_after="3600"), _REFUSED),
    "503": (status("503 Service Unavailable", retry_after="Fri, 31 Dec 9999 23:59:59 GMT"), _REFUSED),
    "500": (status("500 Internal Server Error", b"x" * 70_000), _REFUSED),
    "404": (status("404 Not Found"), _REFUSED),
    "410": (status("410 Gone"), _REFUSED),
    "416": (status("416 Range Not Satisfiable"), _RANGE),
    "no HTTP at all": (endless(b"SSH-2.0-dropbear\r\n", b"\0" * 4096), _REFUSED),
    "one huge header": (endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 4096), _REFUSED),
    "headers without end": (endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 512), _REFUSED),
    "100 Continue without end": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99), _REFUSED),
}  # fmt: skip
_RANGED: Final[dict[str, tuple[Fault, str]]] = {
    "range ignored": (range_ignored, _RANGE),
    "a byte too late": (ranged(1), _RANGE),
    "a byte too early": (ranged(-1), _RANGE),
    "of another whole": (ranged(0, 1), _RANGE),
    "no range named": (headers(content_range=None), _RANGE),
    "a range of nonsense": (headers(content_range="bytes */9"), _RANGE),
    "several parts": (multipart, _RANGE),
    "416": (status("416 Range Not Satisfiable"), _RANGE),
    "gone": (status("404 Not Found"), _REFUSED),
    "another segment": (corrupt(SIZE - 100), _HASH),
}


def _params(table: dict[str, tuple[Fault, str]]) -> list[Any]:
    return [pytest.param(*pair, id=name) for name, pair in table.items()]


FROM_THE_START: Final = _params(_BY_NAME)
OF_A_RANGE: Final = _params(_RANGED)
ANY_TIME: Final = [*_BY_NAME.values(), *_RANGED.values()]
HARMLESS: Final = [
    pytest.param(honest, id="nothing"),
    pytest.param(headers(date="Thu, 01 Jan 1970 00:00:00 GMT"), id="the server is in 1970"),
    pytest.param(headers(date="nonsense", etag=None), id="no date, no ETag"),
    pytest.param(headers(content_encoding="identity"), id="identity named"),
    pytest.param(chunked(b"0\r\n\r\n", 1), id="chunked"),
    pytest.param(chunked(b"1000\r\n" + b"x" * 4096 + b"\r\n", 1 << 14), id="chunked without end"),
    pytest.param(hurried, id="interim answers, byte by byte"),
]


def authority(folder: Path, wrong: str) -> tuple[ssl.SSLContext, Path]:
    """Make a server's certificate and the authority that a device believes; `wrong`: `expired`, `early`, `host`, `unknown`, or nothing."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
    begin = {"expired": now - 9 * day, "early": now + 3 * day}.get(wrong, now - day)
    host = "elsewhere.example" if wrong == "host" else "localhost"
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    if wrong != "host":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + 5 * day)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(pem + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    believed = folder / "believed.pem"
    if wrong == "unknown":
        (folder / "other").mkdir()
        authority(folder / "other", "")
        believed.write_bytes((folder / "other" / "believed.pem").read_bytes())
    else:
        believed.write_bytes(pem)
    return context, believed
