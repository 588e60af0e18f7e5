"""A laboratory's trust in one go: throw-away keys, a root of threshold 1 that says so, one product.

Everything is as in earnest (separate keys a role, sealed files, the same checks); only that one person holds all of it, and the passphrase lies
beside. A lab root cannot be extended into a real one, only replaced.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.core.accept import accept_root, accept_targets
from tidegate.core.keys import PublicKey, Signer
from tidegate.core.metadata import RoleKeys, parse_root, sign
from tidegate.publisher.bundle import write
from tidegate.publisher.ceremony import ROOT_S, RootSpec, begin_root, begin_targets
from tidegate.publisher.keyfile import Role, new_key, open_key
from tidegate.publisher.words import digest_words

PASSPHRASE_NAME: Final = "passphrase"  # noqa: S105 - the name of a file
#: A lab key is opened often and guards nothing.
_MEMORY_KIB: Final = 1 << 10
_ROLES: Final[tuple[Role, ...]] = ("root", "targets", "incident", "product")


@dataclass(frozen=True)
class Lab:
    """Where everything lies.

    Attributes:
        folder: the lab's folder.
        root: `root.1.json`, the anchor for devices.
        trust: a bundle with root and targets, to be published first.
        keys: key files by role (`root`, `targets`, `incident`, `product`).
        passphrase: the file that holds their passphrase.
    """

    folder: Path
    root: Path
    trust: Path
    keys: Mapping[str, Path]
    passphrase: Path

    def signer(self, role: str) -> Signer:
        """Open one of the keys.

        Raises:
            ConfigError: `key.*`.
        """
        return open_key(self.keys[role], self.passphrase.read_text().strip())


def make_lab(
    folder: Path,
    online: Mapping[str, PublicKey],
    products: Sequence[str],
    *,
    now: int,
    tenant: str = "default",
    randomness: Callable[[int], bytes] = os.urandom,
) -> Lab:
    """Make keys, root and targets below `folder`.

    Args:
        folder: made when it is not there; existing keys are never overwritten.
        online: public halves of the server's online keys (`publisher.ceremony.online_keys`).
        products: names of the products that the one product key signs for.
        now: unix seconds.
        tenant: the tenant.
        randomness: unpredictable bytes.

    Raises:
        ConfigError: `config.invalid`: there are keys already.
    """
    keys = folder / "keys"
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    passphrase = digest_words(randomness(32)).replace(" ", "-")
    paths: dict[str, Path] = {role: keys / f"{role}.key" for role in _ROLES}
    for role in _ROLES:
        new_key(
            paths[role],
            f"lab-{role}",
            passphrase,
            role=role,
            randomness=randomness,
            memory_kib=_MEMORY_KIB,
        )
    secret = keys / PASSPHRASE_NAME
    handle = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(passphrase + "\n")
    lab = Lab(folder, folder / "root.1.json", folder / "trust.bundle", paths, secret)
    _make_trust(lab, online, products, now, tenant)
    return lab


def open_lab(folder: Path) -> Lab:
    """Return the lab that was made in `folder`."""
    keys = folder / "keys"
    return Lab(
        folder,
        folder / "root.1.json",
        folder / "trust.bundle",
        {role: keys / f"{role}.key" for role in _ROLES},
        keys / PASSPHRASE_NAME,
    )


def _make_trust(
    lab: Lab, online: Mapping[str, PublicKey], products: Sequence[str], now: int, tenant: str
) -> None:
    signers = {role: lab.signer(role) for role in _ROLES}
    offline = {
        role: RoleKeys((signers[role].public.called(f"lab-{role}"),), 1)
        for role in ("root", "targets", "incident")
    }
    roles = {**offline, **{name: RoleKeys((key,), 1) for name, key in online.items()}}
    spec = RootSpec(tenant=tenant, expires_s=ROOT_S, roles=roles, lab=True)
    root = sign(begin_root(spec, previous=None, now=now), signers["root"])
    product = RoleKeys((signers["product"].public.called("lab-product"),), 1)
    draft = begin_targets(
        dict.fromkeys(products, product), previous=None, now=now, one_signer=products
    )
    targets = sign(draft, signers["targets"])
    accept_root(root, previous=None, now=now)
    accept_targets(targets, root=parse_root(root), previous=None, now=now)
    lab.root.write_bytes(root)
    write(lab.trust, {"root": root, "targets": targets}, {})
