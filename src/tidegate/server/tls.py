"""TLS with an own certificate authority for a local network: made once in the data directory, P-256, renewed by itself.

Devices and browsers take `tls/ca.pem`. TLS only hides; what a device installs is decided by signatures.
"""

import ipaddress
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tidegate.core.errors import ConfigError
from tidegate.server.config import Settings
from tidegate.server.config_values import split_listen

FOLDER: Final = "tls"
_CA_DAYS: Final = 3_650
_CERT_DAYS: Final = 397
_RENEW_DAYS: Final = 30


def context_for(settings: Settings, now: datetime | None = None) -> ssl.SSLContext | None:
    """Return the TLS context that the settings ask for, or None for none.

    Args:
        settings: `tls` makes an own authority; `tls_cert` and `tls_key` name files.
        now: for how long certificates are good from; None = the clock.

    Raises:
        ConfigError: `config.unreadable`, `config.missing`.
    """
    if settings.tls_cert:
        if not settings.tls_key:
            raise ConfigError("config.missing", "[http] tls_key goes with tls_cert")
        return _context(Path(settings.tls_cert), Path(settings.tls_key))
    if not settings.tls:
        return None
    host, _ = split_listen(settings.listen)
    folder = Path(settings.data_dir) / FOLDER
    return _context(*own_certificate(folder, _names(host), now or datetime.now(UTC)))


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # tickets cost a fifth of each handshake, and devices keep none: they would save a tenth of the next
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("config.unreadable", f"{certificate}, {key}: {error}") from error
    return context


def _names(host: str) -> tuple[str, ...]:
    found = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
    if host not in {"0.0.0.0", "::"}:  # noqa: S104 - recognised, not bound
        found.add(host)
    return tuple(sorted(found))


def own_certificate(folder: Path, names: tuple[str, ...], now: datetime) -> tuple[Path, Path]:
    """Return certificate and key files for these names, signed by the folder's own authority; both are made where they are missing or nearly over.

    Raises:
        ConfigError: `data.read_only`.
    """
    certificate, key = folder / "server.pem", folder / "server.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca_certificate, ca_key = _authority(folder, now)
        if not _is_good(certificate, key, names, now):
            _issue(certificate, key, names, ca_certificate, ca_key, now)
    except OSError as error:
        raise ConfigError("data.read_only", f"{folder}: {error.strerror}") from error
    return certificate, key


def _authority(folder: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if certificate.is_file() and key.is_file():
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ConfigError("key.malformed", f"{key} is not a P-256 key")
        return x509.load_pem_x509_certificate(certificate.read_bytes()), loaded
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tidegate local authority")])
    made = (
        _builder(name, name, private, now, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    _write_key(key, private)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made, private


def _is_good(certificate: Path, key: Path, names: tuple[str, ...], now: datetime) -> bool:
    if not (certificate.is_file() and key.is_file()):
        return False
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    if found.not_valid_after_utc < now + timedelta(days=_RENEW_DAYS):
        return False
    held = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(_alternatives(names)) <= set(held)


def _issue(
    certificate: Path,
    key: Path,
    names: tuple[str, ...],
    ca_certificate: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    made = (
        _builder(name, ca_certificate.subject, private, now, _CERT_DAYS)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write_key(key, private)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    private: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _alternatives(names: tuple[str, ...]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _write_key(path: Path, private: ec.EllipticCurvePrivateKey) -> None:
    body = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)


def expires_at(path: Path) -> int:
    """Return when the first certificate of a PEM file lapses, unix seconds.

    Raises:
        ConfigError: `config.unreadable`.
    """
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError("config.unreadable", f"{path}: no certificate: {error}") from error
    return int(found.not_valid_after_utc.timestamp())
