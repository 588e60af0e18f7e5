"""The own authority for a local network: made once, kept, renewed in time."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from tidegate.core.errors import ConfigError
from tidegate.server import tls
from tidegate.server.config import Settings

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_stays_and_the_certificate_is_renewed_in_time(tmp_path: Path) -> None:
    certificate, key = tls.own_certificate(tmp_path, ("localhost", "127.0.0.1"), NOW)
    first, authority = _read(certificate), (tmp_path / "ca.pem").read_bytes()
    assert key.stat().st_mode & 0o077 == 0
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    tls.own_certificate(tmp_path, ("localhost", "127.0.0.1"), NOW + timedelta(days=300))
    assert _read(certificate).serial_number == first.serial_number
    tls.own_certificate(tmp_path, ("localhost", "127.0.0.1"), NOW + timedelta(days=380))
    assert _read(certificate).serial_number != first.serial_number
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_a_new_name_gets_a_new_certificate(tmp_path: Path) -> None:
    certificate, _ = tls.own_certificate(tmp_path, ("localhost",), NOW)
    first = _read(certificate).serial_number
    tls.own_certificate(tmp_path, ("localhost", "gate.lan"), NOW)
    found = _read(certificate)
    assert found.serial_number != first
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "gate.lan"}


def test_the_settings_choose(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert tls.context_for(settings) is None
    made = tls.context_for(msgspec.structs.replace(settings, tls=True))
    assert made is not None
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2
    assert made.num_tickets == 0
    files = {
        "tls_cert": str(tmp_path / "tls" / "server.pem"),
        "tls_key": str(tmp_path / "tls" / "server.key"),
    }
    assert tls.context_for(msgspec.structs.replace(settings, **files)) is not None


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"tls_cert": "/nowhere.pem"}, "config.missing"),
        ({"tls_cert": "/nowhere.pem", "tls_key": "/nowhere.key"}, "config.unreadable"),
    ],
)
def test_files_that_are_not_there_are_named(values: dict[str, str], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tls.context_for(msgspec.structs.replace(Settings(), **values))
    assert caught.value.code == code
