"""`tidegate init`: the files that a product starts with, commented, and a laboratory's keys on request."""

import time
from pathlib import Path
from typing import Final

import click

from tidegate.cli.output import Output, with_output
from tidegate.core.errors import ConfigError

_SERVER: Final = """\
# tidegate.toml: the control plane. `tidegate serve` reads it from the folder it is started in.
# Every key has a default; what is commented out shows it.

[data]
dir = "tidegate-data"

[http]
listen = "127.0.0.1:8440"          # give --tls to listen on a network
# external_url = ""                # what devices use, where it differs

[poll]
interval = "{poll}"                 # how often devices ask

[plan]
tick = "{tick}"                    # how often rollouts are looked at; bad news at once

# [[ingest]]                       # what a channel demands of a release's origin
# channels = ["stable"]
# needs    = ["sbom"]              # also "provenance", "vex"
# builders = ["https://ci.example.com/builders/*"]
# signers  = ["ci.pub.json"]       # whose signature below the provenance counts
"""
_RELEASE: Final = """\
# release.toml: what a release is. `tidegate release build` packs it, `sign` signs it, `publish` sends it.

schema  = 1
product = "{product}"
version = "1.0.0"                  # for people
counter = 1                        # decides the order; higher with every release
security_version = 0               # raise it to close the way back to insecure releases
channels = ["stable"]
contract = "health.toml"

[hardware]
model     = "{product}"
revisions = "0-9"

[[component]]
name      = "rootfs"
type      = "raw_image"
directory = "image"                # becomes an ext4 image of this size; or: image = "build/rootfs.ext4"
size      = "8MiB"
"""
_HEALTH: Final = """\
# health.toml: when the new slot counts as healthy. It is part of the release and signed with it.

schema  = 1
warm_up = "{warm_up}"                  # every check has to pass for so long
every   = "{every}"
give_up = "{give_up}"                 # not healthy by then: the device goes back by itself

{checks}
# [[check]]
# name  = "services"
# type  = "services"
# units = ["gateway.service"]
"""
_CHECKS: Final = """\
[[check]]
name = "boot"
type = "boot"                      # by systemd; or: by = "marker:/run/app.ready"

[[check]]
name = "network"
type = "network"
"""
_LAB_CHECKS: Final = """\
[[check]]
name = "lab"
type = "command"                   # a virtual board has no system of its own: this one always passes
run  = ["true"]                    # make it ["false"] in the next release, and see every board go back

# [[check]]
# name = "boot"
# type = "boot"                    # on a real board: systemd says that the system is up
"""
_ROLLOUT: Final = """\
# rollout.toml: how a release goes out. `tidegate rollout create rollout.toml --dry-run` shows what it would do.

release = "{product}-1.0.0"
preset  = "{preset}"                 # careful, normal, fast, emergency, lab; the rest is taken from it

# [[ring]]
# name     = "internal"
# audience = "group:internal"      # a query over device attributes
# soak     = "4h"
"""
_LAB_README: Final = """\
Laboratory keys: one person can sign everything, and the passphrase lies beside them.
They are for trying things out on one machine. A lab root cannot be extended into a real
one; for a product, run the ceremony: tidegate root begin.
"""


@click.command("init")
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--product", default="gateway", show_default=True, help="Name of the product.")
@click.option(
    "--lab", is_flag=True, help="Also make throw-away keys and a root of trust for this machine."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The server's data directory, for --lab; default: FOLDER/tidegate-data.",
)
@with_output
def command(folder: Path, *, product: str, lab: bool, data: Path | None, out: Output) -> None:
    """Write a commented tidegate.toml, release.toml, rollout.toml and health.toml.

    \b
    tidegate init
    tidegate init try --product gw1 --lab
    """
    written = _write_files(folder, product, lab=lab)
    if lab:
        written += _make_lab(folder, product, data or folder / "tidegate-data")
    text = "\n".join(f"wrote {name}" for name in written)
    out.data("init/1", {"folder": str(folder), "files": written}, text)
    out.note(_next(folder, product, lab=lab))


def _write_files(folder: Path, product: str, *, lab: bool) -> list[str]:
    lab_times = {"poll": "2s", "tick": "1s", "warm_up": "5s", "every": "1s", "give_up": "60s"}
    times = {"poll": "5m", "tick": "60s", "warm_up": "10m", "every": "15s", "give_up": "30m"}
    words = {"product": product, "preset": "lab" if lab else "normal"}
    words |= lab_times if lab else times
    words["checks"] = _LAB_CHECKS if lab else _CHECKS
    files = {
        "tidegate.toml": _SERVER,
        "release.toml": _RELEASE,
        "health.toml": _HEALTH,
        "rollout.toml": _ROLLOUT,
    }
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise ConfigError(
            "config.invalid",
            f"{', '.join(there)} in {folder} would be overwritten; nothing done",
            hint="choose another folder: tidegate init FOLDER; or move these files away",
        )
    (folder / "image" / "etc").mkdir(parents=True, exist_ok=True)
    for name, template in files.items():
        (folder / name).write_text(template.format(**words))
    (folder / "image" / "etc" / "version").write_text("1.0.0\n")
    return [*files, "image/etc/version"]


def _make_lab(folder: Path, product: str, data: Path) -> list[str]:
    """Make the server's online keys, where it has none yet, and a root of trust around them."""
    import os

    from tidegate.publisher.lab import make_lab
    from tidegate.server.online import open_keys

    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = open_keys(data, os.urandom)
    online = {
        name: getattr(keys, name).public for name in ("snapshot", "timestamp", "director", "audit")
    }
    lab = make_lab(folder / "lab", online, [product], now=int(time.time()))
    (folder / "lab" / "README").write_text(_LAB_README)
    made = [*lab.keys.values(), lab.passphrase, lab.root, lab.trust]
    return [str(one.relative_to(folder)) for one in made]


def _next(folder: Path, product: str, *, lab: bool) -> str:
    where = "" if folder == Path() else f"cd {folder} && "
    if not lab:
        return f"Next:  {where}tidegate serve\n       tidegate root begin ceremony.toml"
    return (
        "LAB KEYS: one person can sign everything. Not for a product.\n"
        f"Next:  {where}tidegate serve &\n"
        "       tidegate release publish lab/trust.bundle\n"
        f"       tidegate release build release.toml && tidegate release sign {product}-1.0.0.bundle "
        "--key lab/keys/product.key"
    )
