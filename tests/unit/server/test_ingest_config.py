"""`[[ingest]]` in `tidegate.toml`."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tidegate.core.errors import ConfigError
from tidegate.core.supply.policy import IngestRule
from tidegate.publisher.keyfile import new_key
from tidegate.server.config import load


def _load(folder: Path, text: str) -> tuple[IngestRule, ...]:
    path = folder / "tidegate.toml"
    path.write_text(text)
    return load(path, environ={}).ingest


def _pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_rules_and_their_keys_are_read(tmp_path: Path) -> None:
    new_key(tmp_path / "ci.key", "ci", "correct horse battery staple", randomness=bytes)  # fmt: skip
    (tmp_path / "ed.pem").write_bytes(_pem(ed25519.Ed25519PrivateKey.generate()))
    (tmp_path / "p256.pem").write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    rule = _load(
        tmp_path,
        '[[ingest]]\nneeds = ["sbom"]\nsigners = ["ci.pub.json", "ed.pem", "p256.pem"]\n'
        '[[ingest]]\nproduct = "gw1"\nchannels = ["beta"]\nbuilders = ["https://x/*"]\n',
    )
    assert [one.product for one in rule] == ["*", "gw1"]
    assert (rule[0].channels, rule[1].channels) == (("stable",), ("beta",))
    assert [one.keytype for one in rule[0].signers] == ["ed25519", "ed25519", "ecdsa"]


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ('[[ingest]]\nneed = ["sbom"]', "config.invalid", "need"),
        ('[[ingest]]\nneeds = ["sboms"]', "config.invalid", "needs"),
        ("[[ingest]]\nchannels = []", "config.invalid", "channels"),
        ('[[ingest]]\nchannels = ["Stable!"]', "config.invalid", "channels"),
        ('[ingest]\nneeds = ["sbom"]', "config.invalid", "ingest"),
        ('[[ingest]]\nsigners = ["none.pem"]', "config.unreadable", "none.pem"),
        ('[[ingest]]\nsigners = ["rsa.pem"]', "config.invalid", "rsa.pem"),
        ('[[ingest]]\nsigners = ["tidegate.toml"]', "config.invalid", "tidegate.toml"),
    ],
)
def test_a_wrong_rule_is_refused_at_the_start(
    tmp_path: Path, text: str, code: str, word: str
) -> None:
    (tmp_path / "rsa.pem").write_bytes(_pem(rsa.generate_private_key(65_537, 2_048)))
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert caught.value.code == code
    assert word in caught.value.detail
