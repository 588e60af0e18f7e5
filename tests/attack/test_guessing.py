"""Guessing at three server processes on one database gives no more guesses than at one, and keeps nobody out who does not guess."""

import concurrent.futures
import contextlib
import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest
from tests import stores
from tests.e2e.served import Served, first_password

from tidegate.core import keys
from tidegate.core.codec import encode
from tidegate.core.hardware import Hardware
from tidegate.core.keys import Signer
from tidegate.core.protocol import ENROL_TYPE, EnrolBody, EnrolRequest
from tidegate.server.people.sessions import (
    TRIES_MAX,
    TRIES_OF_ADDRESS,
    TRIES_OF_NAME,
    TRIES_WINDOW_S,
)

#: So many wrong requests to join may one address send; a twentieth is what a process keeps to itself.
FAILED = 40
_SETTINGS = """
[data]
shared = true
[joining]
failed_rate = 1
failed_burst = {failed}
[http]
trusted_proxies = ["127.0.0.1"]
[log]
level = "warning"
"""


class Replicas:
    """Three server processes on one database. Each request goes to the next one, from an address that a proxy names."""

    def __init__(self, servers: list[Served]) -> None:
        self.servers = servers
        self.password = first_password(servers[0].data)
        self._next = itertools.cycle(servers)

    def post(self, path: str, body: bytes, kind: str, address: str) -> int:
        headers = {"content-type": kind, "x-forwarded-for": address}
        port = next(self._next).port
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("POST", path, body, headers)
            return connection.getresponse().status

    def sign_in(self, name: str, password: str, address: str) -> int:
        body = urlencode({"name": name, "password": password, "next": "/"}).encode()
        return self.post("/sign-in", body, "application/x-www-form-urlencoded", address)

    def join(self, number: int, address: str) -> int:
        """Ask to be let in by a claim that is none."""
        signer = Signer.from_seed(bytes(31) + bytes([number % 256]))
        body = EnrolBody(
            device_id=f"d{number}",
            public_key=signer.public.public,
            product="gw1",
            hardware=Hardware("gw1", 1, f"s{number}"),
        )
        request = EnrolRequest(
            envelope=keys.sign_document(body, ENROL_TYPE, signer), claim=f"guess-{number}"
        )
        return self.post("/d/v1/enrol", encode(request), "application/json", address)


@pytest.fixture(scope="module", params=stores.BACK_ENDS)
def replicas(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    tmp_path = tmp_path_factory.mktemp("replicas")
    with stores.place(request.param, tmp_path) as place, contextlib.ExitStack() as stack:
        text = _SETTINGS.format(failed=FAILED)
        if place.url:
            text += f'[database]\nurl = "{place.url}"\n'
        settings = tmp_path / "tidegate.toml"
        settings.write_text(text)
        servers = []
        for _ in range(3):
            one = Served(tmp_path / "data", "--config", str(settings))
            stack.callback(one.kill)
            servers.append(one)
        yield Replicas(servers)


class Counted:
    """Guesses that were looked at, and how many may be: those of one process, and what time gave back meanwhile."""

    def __init__(self, most: int, window_s: int = TRIES_WINDOW_S) -> None:
        self.most, self.window_s = most, window_s
        self.began = time.monotonic()

    def hold(self, answers: list[int], looked: int, *, spare: int = 0) -> None:
        back = (time.monotonic() - self.began) * self.most / self.window_s
        assert set(answers) == {looked, 429}
        assert self.most <= answers.count(looked) <= self.most + back + 1 + spare

    def until_refused(self, guess: Callable[[int], int], looked: int) -> None:
        answers: list[int] = []
        while 429 not in answers and len(answers) < 2 * self.most:
            answers.append(guess(len(answers)))
        self.hold(answers, looked)


def test_many_guesses_at_once_count_like_many_in_turn(replicas: Replicas) -> None:
    counted = Counted(TRIES_MAX)
    with concurrent.futures.ThreadPoolExecutor(6) as crowd:
        guess = functools.partial(replicas.sign_in, "admin", "guess", "203.0.113.7")
        answers = list(crowd.map(lambda _: guess(), range(3 * TRIES_MAX)))
    counted.hold(answers, 401)
    # The right one from elsewhere is taken: nobody is kept out of their account.
    assert replicas.sign_in("admin", replicas.password, "203.0.113.8") == 303


def test_a_network_of_ipv6_tries_many_names_as_one_address_does(replicas: Replicas) -> None:
    at = random.Random(4)

    def guess(number: int) -> int:
        return replicas.sign_in(f"n{number}", "guess", f"2001:db8:1:2::{at.randrange(1 << 16):x}")

    Counted(TRIES_OF_ADDRESS).until_refused(guess, 401)


def test_many_addresses_guess_at_one_name_as_one_does(replicas: Replicas) -> None:
    def guess(number: int) -> int:
        return replicas.sign_in("somebody", "guess", f"198.51.100.{number}")

    Counted(TRIES_OF_NAME).until_refused(guess, 401)


def test_processes_tell_one_another_of_who_joins_by_guessing(replicas: Replicas) -> None:
    counted = Counted(FAILED, FAILED)
    answers = [replicas.join(number, "203.0.113.9") for number in range(3 * FAILED)]
    counted.hold(answers, 403, spare=3 * (FAILED // 20))
    assert replicas.join(999, "203.0.113.10") == 403
