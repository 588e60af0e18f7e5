"""Connections of the load generator, against a server that ends them."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tidegate.core.errors import TransferError
from tidegate.sim.load.wires import Answer, Wires

ASK: Final = b"GET / HTTP/1.1\r\n\r\n"
SAID: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def serving(answers: int) -> Iterator[int]:
    """Answer so many requests on each connection, then end it; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    one, _ = door.accept()
                    with one:
                        for _ in range(answers):
                            if not one.recv(1000):
                                break
                            one.sendall(SAID)

        threading.Thread(target=serve, daemon=True).start()
        yield int(door.getsockname()[1])
        door.shutdown(socket.SHUT_RDWR)


def play(port: int, turns: int) -> tuple[list[Answer], Wires]:
    found: list[Answer] = []
    with contextlib.closing(Wires(port, 1)) as wires:
        wires.play(lambda _: (ASK,), per_s=50, seconds=turns / 50, note=found.append)
        return found, wires


def test_opens_again_what_the_server_ended_for_want_of_use() -> None:
    with serving(answers=2) as port:
        found, wires = play(port, 7)
    assert [one.status for one in found] == [200] * 7
    assert (wires.opened, wires.most_open) == (4, 1)


def test_a_connection_that_is_ended_before_its_first_answer_is_an_error() -> None:
    with serving(answers=0) as port, pytest.raises(TransferError) as caught:
        play(port, 1)
    assert caught.value.code == "download.truncated"
