"""Every way in which a link can lie, between a worker process and a server process: each transfer ends whole, or with the right reason and then whole."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.link import faults
from tests.link.device import SEGMENT, SIZE, Device, Goods, serving
from tests.link.proxy import Fault, Proxy, honest

#: Peak of a worker's memory, whatever it is sent.
PEAK_KIB = 64 << 10


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Goods:
    return Goods(tmp_path_factory.mktemp("goods"))


@pytest.fixture(scope="module")
def origin(goods: Goods) -> Iterator[int]:
    with serving(goods.served) as port:
        yield port


@pytest.fixture(scope="module")
def shared(origin: int) -> Iterator[Proxy]:
    proxy = Proxy(origin)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(shared: Proxy) -> Proxy:
    shared.faults, shared.others, shared.asked = [], [], []
    return shared


@pytest.fixture(scope="module")
def made(goods: Goods, shared: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    device = Device(tmp_path_factory.mktemp("dev"), goods, f"http://127.0.0.1:{shared.port}")
    yield device
    device.close()


@pytest.fixture
def device(made: Device, proxy: Proxy) -> Device:
    made.fresh()
    return made


def _went_on(device: Device) -> None:
    """The same worker process gets the rest, and never held more than its bound."""
    process = device.worker._process
    assert process is not None
    assert process.poll() is None
    device.fetch_all(most=3)
    assert device.holds_it()
    assert device.worker._process is process
    assert device.peak_kib < PEAK_KIB


@pytest.mark.parametrize(("fault", "reason"), faults.FROM_THE_START)
def test_a_fault_ends_with_its_reason_and_then_the_rest_comes(
    device: Device, proxy: Proxy, fault: Fault, reason: str
) -> None:
    # Twice: what fails on a kept connection before its head is whole is asked for once more on another one.
    proxy.faults += [fault, fault]
    assert device.fetch() == reason
    proxy.faults = []
    _went_on(device)


@pytest.mark.parametrize(("fault", "reason"), faults.OF_A_RANGE)
def test_a_wrong_answer_to_a_range_is_refused_and_then_the_rest_comes(
    device: Device, proxy: Proxy, fault: Fault, reason: str
) -> None:
    proxy.faults += [faults.cut(SIZE // 2), fault]
    assert [device.fetch(), device.fetch()] == ["download.truncated", reason]
    _went_on(device)


@pytest.mark.parametrize("fault", faults.HARMLESS)
def test_what_is_odd_and_no_harm_ends_whole(device: Device, proxy: Proxy, fault: Fault) -> None:
    proxy.faults.append(fault)
    assert device.fetch() == "whole"
    _went_on(device)


@pytest.mark.parametrize("seed", range(4))
def test_many_cuts_in_one_transfer_cost_almost_nothing_twice(
    device: Device, proxy: Proxy, seed: int
) -> None:
    dice = random.Random(seed)
    # A close leaves what was sent before in the device's hands: what it asks for again is its own loss alone.
    proxy.faults += [faults.cut(dice.randrange(150_000)) for _ in range(12)]
    ends = device.fetch_all()
    assert set(ends) == {"download.truncated", "whole"}
    assert len(ends) >= 6
    assert device.holds_it()
    again = sum(passed for _, passed in proxy.asked) - len(device.goods.body)
    assert 0 <= again <= len(device.goods.body) * 0.02, proxy.asked


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_of_faults_ends_whole(device: Device, proxy: Proxy, seed: int) -> None:
    dice = random.Random(100 + seed)
    known = {reason for _, reason in faults.ANY_TIME}
    proxy.faults += [dice.choice(faults.ANY_TIME)[0] for _ in range(10)]
    proxy.faults += [faults.cut(dice.randrange(SIZE), rst=True) for _ in range(3)]
    ends = device.fetch_all()
    # A fault meant for a range may meet the first request, and the reverse.
    assert set(ends) <= known | {"whole", "download.range", "download.truncated", "download.hash"}
    assert device.holds_it()
    assert device.peak_kib < PEAK_KIB


def test_resets_cost_only_what_was_in_flight(device: Device, proxy: Proxy) -> None:
    proxy.faults += [faults.cut(SEGMENT * 3 + 17, rst=True) for _ in range(3)]
    device.fetch_all()
    assert device.holds_it()
    # What the worker itself read, of all that it was sent.
    assert device.progress is not None
    read = device.progress.stored_bytes
    assert read <= len(device.goods.body) * 1.02


def test_a_connection_closed_between_two_requests_is_not_even_noticed(
    device: Device, proxy: Proxy
) -> None:
    assert device.fetch() == "whole"
    device.fresh()

    def close(wire: object, answer: object) -> bool:
        return False

    proxy.faults += [close]  # the kept connection is gone when the next request comes
    assert device.fetch() == "whole"


def test_a_refused_token_asks_for_a_new_session(device: Device, proxy: Proxy) -> None:
    proxy.faults.append(faults.status("401 Unauthorized"))
    assert device.fetch() == "token"
    _went_on(device)


@pytest.mark.parametrize("fault", [faults.stall(0), faults.stall(SIZE // 3)], ids=["head", "body"])
def test_a_link_that_falls_silent_is_given_up(
    goods: Goods, proxy: Proxy, tmp_path: Path, fault: Fault
) -> None:
    hasty = Device(tmp_path / "dev", goods, f"http://127.0.0.1:{proxy.port}", timeout_s=5.0)
    proxy.faults.append(fault)
    try:
        assert hasty.fetch() == "download.timeout"
        hasty.fetch_all(most=5)
        assert hasty.holds_it()
    finally:
        hasty.close()


def test_a_slow_loris_is_given_up(goods: Goods, proxy: Proxy, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{proxy.port}"
    device = Device(tmp_path / "dev", goods, url, rate_min=4096, rate_grace_s=2)
    proxy.faults.append(faults.drip(SIZE // 3))
    try:
        assert device.fetch() == "download.slow"
        _went_on(device)
    finally:
        device.close()


def _ends(goods: Goods, folder: Path, url: str, ca: str | None = None) -> str:
    device = Device(folder, goods, url, ca=ca)
    try:
        return device.fetch()
    finally:
        device.close()


def test_a_name_that_nobody_knows(goods: Goods, tmp_path: Path) -> None:
    assert _ends(goods, tmp_path / "dev", "http://no-such-host.invalid") == "download.dns"


def test_a_port_where_nobody_listens(goods: Goods, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        assert _ends(goods, tmp_path / "dev", url) == "download.refused"


@pytest.mark.parametrize("heard", [Proxy.to_tls, b""], ids=["plain HTTP", "cut"])
def test_a_handshake_that_fails(goods: Goods, proxy: Proxy, tmp_path: Path, heard: bytes) -> None:
    proxy.to_tls = heard
    assert _ends(goods, tmp_path / "dev", f"https://127.0.0.1:{proxy.port}") == "download.tls"


@pytest.mark.parametrize("what", ["expired", "early", "host", "unknown"])
def test_a_certificate_that_does_not_hold(
    goods: Goods, origin: int, tmp_path: Path, what: str
) -> None:
    context, ca = faults.authority(tmp_path, what)
    proxy = Proxy(origin, tls=context)
    try:
        url = f"https://localhost:{proxy.port}"
        assert _ends(goods, tmp_path / "dev", url, str(ca)) == "download.tls"
        assert proxy.asked == []
    finally:
        proxy.close()


def test_a_good_certificate_lets_the_payload_through(
    goods: Goods, origin: int, tmp_path: Path
) -> None:
    context, ca = faults.authority(tmp_path, "")
    proxy = Proxy(origin, tls=context, faults=[faults.cut(SIZE // 2), honest])
    device = Device(tmp_path / "dev", goods, f"https://localhost:{proxy.port}", ca=str(ca))
    try:
        # Without its close_notify the end of a TLS connection is an attack's as well as a cut's.
        assert device.fetch() in {"download.tls", "download.truncated"}
        _went_on(device)
    finally:
        device.close()
        proxy.close()
