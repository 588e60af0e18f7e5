"""`tidegate doctor`: is the server on this machine well?"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate import __version__
from tidegate.cli._tenant import placed, with_tenant
from tidegate.cli.output import Output, with_output

if TYPE_CHECKING:
    from tidegate.server.doctor import Check

_WORDS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


@click.command("doctor", short_help="Is the server on this machine well?")
@click.option("--config", "config", type=click.Path(path_type=Path), help="tidegate.toml")
@click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Data directory.")
@with_tenant
@with_output
def command(config: Path | None, data_dir: Path | None, tenant: str, out: Output) -> int:
    """Look at configuration, data, keys, metadata and payloads. Nothing is changed.

    Exit code 1 when something failed; warnings alone are 0.

    \b
    tidegate doctor
    tidegate doctor --data ./tidegate-data --json
    """
    from tidegate.server.config import load
    from tidegate.server.doctor import examine

    settings = placed(load(config, options={"data_dir": data_dir}), tenant)
    found = examine(settings, int(time.time()))
    failed = sum(one.level == "failed" for one in found)
    body = {"version": __version__, "failed": failed, "checks": found}
    out.data("doctor/1", body, _text(str(settings.data_dir), found))
    return 1 if failed else 0


def _text(folder: str, found: "list[Check]") -> str:
    lines = [f"Tidegate {__version__}, data {folder}", ""]
    for one in found:
        lines.append(f"  {_WORDS[one.level]:8} {one.name:14} {one.text}")
        if one.fix:
            lines.append(f"{'':26}fix: {one.fix}")
    count = {level: sum(one.level == level for one in found) for level in _WORDS}
    lines += ["", f"{count['failed']} failed, {count['warning']} warnings, {count['ok']} ok"]
    return "\n".join(lines)
