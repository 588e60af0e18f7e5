"""`tidegate bench`: what a fleet costs on this machine."""

from pathlib import Path

import click

from tidegate.cli.output import Output, with_output


@click.group("bench", short_help="Measure what a fleet costs on this machine.")
def command() -> None:
    """Measure what a fleet costs on this machine."""


@command.command("fleet", short_help="Serve a large fleet at its usual pace.")
@click.option("--devices", default=100_000, show_default=True, type=click.IntRange(100, 10_000_000))
@click.option(
    "--interval",
    "interval_s",
    default=300,
    show_default=True,
    type=click.IntRange(1, 86_400),
    help="Seconds between two polls of a device.",
)
@click.option(
    "--seconds",
    default=60,
    show_default=True,
    type=click.IntRange(1, 86_400),
    help="How long the load lasts.",
)
@click.option(
    "--sockets",
    default=10_000,
    show_default=True,
    type=click.IntRange(1, 60_000),
    help="Connections held at a time.",
)
@click.option(
    "--tls-seconds",
    default=5,
    show_default=True,
    type=click.IntRange(0, 600),
    help="How long polls over fresh TLS connections are measured; 0 = not.",
)
@click.option(
    "--sweep",
    is_flag=True,
    help="Also 1,000, 10,000, ... devices below that: what one device costs as the fleet grows. They poll more often, 300 times a second together.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the data directory here; default: a temporary one.",
)
@with_output
def fleet(
    *,
    devices: int,
    interval_s: int,
    seconds: int,
    sockets: int,
    tls_seconds: int,
    sweep: bool,
    data: Path | None,
    out: Output,
) -> None:
    """Serve a large fleet at its usual pace, and say what one core would carry.

    A server process of its own, SQLite, this client beside it: only the server's processor time counts.

    \b
    tidegate bench fleet --devices 1000000
    tidegate bench fleet --devices 100000 --sweep --json
    """
    from tidegate.sim.load.fleet import Load, lines, measure, plain, table

    smaller = [10**power for power in range(3, 8) if 10**power < devices] if sweep else []
    reports = []
    for count in [*smaller, devices]:
        asked = Load(
            devices=count,
            # Smaller fleets poll more often, so that their turns can be told from what the server does anyway.
            interval_s=interval_s if count == devices else min(interval_s, max(1, count // 300)),
            seconds=seconds,
            sockets=sockets,
            tls_s=tls_seconds if count == devices else 0,
            data=data if count == devices else None,
        )
        reports.append(measure(asked, out.note))
    text = lines(reports[-1])
    if sweep:
        text += ["", *table(reports)]
    out.data("bench.fleet/1", {"runs": plain(reports)}, "\n".join(text))
