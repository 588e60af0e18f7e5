"""Software tokens (SoftHSM) for the tests that want one.

The module reads its settings once in a process, whoever loads it first; so there is one folder for all tests of a run, made before anything loads the module:
a token `ada` with two P-256 keys, 2 and 3, and a P-384 one, 4. One token only: what is asked without a name must find it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

PIN: Final = "648219"
_SO_PIN: Final = "12345678"
_LIBRARIES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
_MAKE_KEYS: Final = """
import sys
import pkcs11, pkcs11.util.ec
token = pkcs11.lib(sys.argv[1]).get_token(token_label="ada")
with token.open(rw=True, user_pin=sys.argv[2]) as session:
    for curve, number in (("secp256r1", 2), ("secp256r1", 3), ("secp384r1", 4)):
        named = pkcs11.util.ec.encode_named_curve_parameters(curve)
        made = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: named}, local=True
        )
        made.generate_keypair(store=True, id=bytes([number]), label=f"key {number}")
"""


@dataclass(frozen=True)
class Tokens:
    """Where they are.

    Attributes:
        library: the PKCS#11 module.
        folder: for files of a test's own.
    """

    library: str
    folder: Path


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    library = next((one for one in _LIBRARIES if Path(one).is_file()), None)
    if library is None or shutil.which("softhsm2-util") is None:
        pytest.skip("tier: tokens: install the Debian package softhsm2")
    pytest.importorskip(
        "pkcs11", reason="tier: tokens: install the packages of requirements/dev.txt"
    )
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(settings)
    _run("softhsm2-util", "--init-token", "--free", "--label", "ada", "--so-pin", _SO_PIN, "--pin", PIN)  # fmt: skip
    _run(sys.executable, "-c", _MAKE_KEYS, library, PIN)
    yield Tokens(library, folder)
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
