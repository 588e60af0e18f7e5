"""A proxy that lies: it takes whole answers from a server and passes them on as its script says, one fault an answer."""

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tidegate.agent.net.download import BLOBS

#: Most that is passed on at once: small, so that a cut leaves little behind in buffers.
PIECE: Final = 16 << 10
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_WAIT_S: Final = 60.0


@dataclass
class Answer:
    """What the server said."""

    status: str
    headers: dict[str, str]
    body: bytes
    #: First byte that was asked for.
    first: int = 0

    def head(self, **changes: str | None) -> bytes:
        """Write status line and headers; a change of None leaves a header out."""
        headers: dict[str, str | None] = {**self.headers}
        headers.update({name.replace("_", "-"): value for name, value in changes.items()})
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        return "\r\n".join([f"HTTP/1.1 {self.status}", *lines, "", ""]).encode()


class Wire:
    """The proxy's end of one connection."""

    def __init__(self, client: socket.socket, stop: threading.Event) -> None:
        self.client = client
        self._stop = stop
        #: Bytes of payload that were passed on.
        self.passed = 0

    def send(self, data: bytes) -> None:
        """Pass on what is no payload."""
        self.client.sendall(data)

    def body(self, data: bytes) -> None:
        """Pass on a part of a payload."""
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            self.client.sendall(view[at : at + PIECE])
            self.passed += len(view[at : at + PIECE])

    def reset(self) -> None:
        """End with RST: what was not read yet is lost."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)

    def stay(self, step_s: float = 0.05, drip: bytes = b"") -> None:
        """Keep the connection open, with a drip every now and then, until the client goes."""
        while not self._stop.is_set():
            if drip:
                self.client.sendall(drip)
            if select.select([self.client], [], [], step_s)[0] and not self.client.recv(4096):
                return


#: Passes an answer on. Return True to keep the connection.
Fault = Callable[[Wire, Answer], bool]


def honest(wire: Wire, answer: Answer) -> bool:
    """Pass all of it on."""
    wire.send(answer.head())
    wire.body(answer.body)
    return True


@dataclass
class Proxy:
    """Listens on a free port of `host`.

    Attributes:
        faults: what happens to the next answers with payload; afterwards all is honest.
        others: the same for answers of any other kind.
        routes: the same for answers of one kind, by the first word of the path behind `/d/v1/`; these come first.
        to_tls: what somebody hears who speaks TLS where there is none.
        asked: first byte and passed bytes of each request for payload.
    """

    upstream: int
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    faults: list[Fault] = field(default_factory=list)
    others: list[Fault] = field(default_factory=list)
    routes: dict[str, list[Fault]] = field(default_factory=dict)
    to_tls: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._listener = socket.create_server((self.host, 0))
        self._listener.settimeout(0.1)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_WAIT_S)
        with client, contextlib.suppress(OSError):
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
            with client:
                while self._one(client):
                    pass

    def _one(self, client: socket.socket) -> bool:
        if self.tls is None and client.recv(1, socket.MSG_PEEK) == b"\x16":
            client.recv(1 << 16)
            client.sendall(self.to_tls)
            return False
        got = receive(client)
        if got is None:
            return False
        request, body = got
        first_line, headers = parse(request)
        answer = self._ask(first_line, headers, body)
        path = first_line.split(" ")[1]
        payload = path.startswith(BLOBS)
        route = path.removeprefix("/d/v1/").partition("/")[0]
        plan = self.routes.get(route) or (self.faults if payload else self.others)
        fault = plan.pop(0) if plan else honest
        wire = Wire(client, self._stop)
        try:
            return fault(wire, answer)
        finally:
            if payload:
                self.asked.append((answer.first, wire.passed))

    def _ask(self, first_line: str, headers: dict[str, str], body: bytes) -> Answer:
        asked = {**headers, "connection": "close"}
        lines = [first_line, *(f"{name}: {value}" for name, value in asked.items()), "", ""]
        with socket.create_connection(("127.0.0.1", self.upstream), timeout=_WAIT_S) as server:
            server.sendall("\r\n".join(lines).encode() + body)
            whole = b"".join(iter(lambda: server.recv(1 << 16), b""))
        head, _, content = whole.partition(b"\r\n\r\n")
        status, given = parse(head)
        if given.pop("transfer-encoding", "") == "chunked":
            content = dechunk(content)
            given["content-length"] = str(len(content))
        given.pop("connection", None)
        first = headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        return Answer(status.partition(" ")[2], given, content, int(first))


def receive(client: socket.socket) -> tuple[bytes, bytes] | None:
    """Read one request: its head and its body. None: the client went."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = client.recv(1 << 16)
        if not piece:
            return None
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(parse(head)[1].get("content-length", "0"))
    while len(body) < length:
        piece = client.recv(1 << 16)
        if not piece:
            return None
        body += piece
    return head, body


def parse(head: bytes) -> tuple[str, dict[str, str]]:
    """Return the first line, and the headers by name in lower case."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return first, {name.lower(): value.strip() for name, _, value in pairs}


def dechunk(content: bytes) -> bytes:
    """Undo the chunked encoding of a whole body."""
    plain = b""
    while content:
        size, _, content = content.partition(b"\r\n")
        count = int(size.partition(b";")[0], 16)
        if not count:
            break
        plain, content = plain + content[:count], content[count + 2 :]
    return plain
