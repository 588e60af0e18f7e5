"""What each generated reference page holds: one function a page, from the code alone."""

import argparse
import importlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, cast, get_args, get_origin, get_type_hints

import click
import docs_api
import msgspec

from tidegate import cli
from tidegate.agent import config as agent_config
from tidegate.agent import main
from tidegate.core import amounts
from tidegate.core.errors import HINTS
from tidegate.core.reasons import REASONS, family
from tidegate.core.supply import policy
from tidegate.rollout import incident, lines, model, query
from tidegate.server import config as server_config
from tidegate.server.api.openapi import describe
from tidegate.server.app import create_app
from tidegate.server.config import Settings
from tidegate.server.messages import EVENTS
from tidegate.server.metric_families import FAMILIES as METRICS
from tidegate.server.metric_families import RELEASES_MAX, ROLLOUTS_MAX
from tidegate.server.people.limits import Oidc

#: Who must act, by the family of the code (the part before the dot).
FAMILIES: Final[dict[str, str]] = {
    "sig": "Signatures and metadata: whoever published must act.",
    "compat": "The image does not fit this device; nothing is wrong with either.",
    "download": "The way between device and server; tried again by itself.",
    "install": "The device's own storage or installer.",
    "activate": "The image is staged and waits or was refused at the last step.",
    "boot": "The boot loader's word on the new image.",
    "health": "The release's health contract was not met; the device goes back by itself.",
    "user": "A person or an application on the device.",
    "operator": "A person at the control plane.",
    "lost": "Silence past a deadline; counted as failure until the device is heard again.",
    "agent": "The agent's own state.",
    "clock": "Time could not be established.",
    "security": "Noticed and reported; not the end of an update.",
    "auth": "Signing in.",
    "config": "Configuration; raised at start only.",
    "data": "The server's data directory.",
    "blobs": "The object store: whoever runs it, or configured it.",
    "tenant": "Tenants of a server; whoever runs it.",
    "quota": "What a tenant may take is taken.",
    "upload": "Files on their way to the server.",
    "backup": "Backups of a server's data.",
    "serve": "Starting the server.",
    "key": "Key files.",
    "supply": "Documents of the supply chain: attachments, advisories, and what channels demand of a release's origin.",
    "audit": "The operators' log; nobody's fault until somebody has looked.",
    "meta": "Root and targets ceremonies.",
    "release": "Building and publishing a release.",
    "request": "The caller of the API or the command line.",
    "device": "A device's standing at the server.",
    "claim": "Enrolment.",
    "session": "A device's session.",
    "server": "The server itself.",
    "link": "Reaching the server.",
}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _grouped(codes: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for code in codes:
        groups.setdefault(family(code), []).append(code)
    return groups


def errors() -> str:
    """Every code: what it means, what to do."""
    parts = [
        "# Errors and reasons",
        (
            "Codes are stable for ever. The same code stands in a device's event, in metrics, in the `type` of an API "
            "problem (`urn:tidegate:error:CODE`) and on the pages. `tidegate explain CODE` prints what stands here."
        ),
        "## Reasons",
        "Why an update ended, or what a device noticed. The list is closed.",
    ]
    for name, codes in _grouped(REASONS).items():
        parts += [f"### {name}", FAMILIES[name]]
        parts.append(_table(("code", "means"), ((f"`{code}`", REASONS[code]) for code in codes)))
    parts += ["## Errors that are not reasons"]
    for name, codes in _grouped(code for code in HINTS if code not in REASONS).items():
        parts += [f"### {name}", FAMILIES[name]]
        parts.append(_table(("code", "what to do"), ((f"`{code}`", HINTS[code]) for code in codes)))
    return "\n\n".join(parts)


def states() -> str:
    """Every state, from the types that the code is checked against."""
    lists = (
        ("Rollout", model.RolloutState, "Late evidence can halt a completed rollout."),
        ("Ring", model.RingState, "A ring that matches nobody is skipped."),
        ("Verdict of a plan", model.Verdict, "Every plan says `because`."),
    )
    parts = ["# States", "Only `confirmed` is success."]
    for title, literal, remark in lists:
        parts += [f"## {title}", ", ".join(f"`{word}`" for word in get_args(literal)) + ".", remark]
    return "\n\n".join(parts)


def _walk(command: click.Command, context: click.Context, depth: int) -> Iterable[str]:
    """Give the help of a command and of all below it, as it is printed 80 columns wide."""
    title = context.command_path
    yield f"{'#' * depth} `{title}`"
    yield f"```text\n{command.get_help(context).rstrip()}\n```"
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None and not below.hidden:
            yield from _walk(below, _context(below, name, context), min(depth + 1, 4))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(
        command, info_name=name, parent=parent, terminal_width=80, max_content_width=80, color=False
    )


def commands() -> str:
    """Every command of `tidegate` with its help."""
    head = "# Commands\n\nEvery command and option of `tidegate`, as `--help` prints it."
    return "\n\n".join([head, *_walk(cli.program, _context(cli.program, "tidegate", None), 2)])


def agent_commands() -> str:
    """Every verb of `tidegate-agent` with its help."""
    os.environ["COLUMNS"] = "80"
    parser = main._parser()  # noqa: SLF001  # the one place that shows the whole of it
    verbs = next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001
    parts = [
        "# Commands on the device",
        "Every verb of `tidegate-agent`, as `--help` prints it. It needs nothing but the base install.",
        f"```text\n{parser.format_help().rstrip()}\n```",
    ]
    for name, below in verbs.choices.items():
        parts += [f"## `tidegate-agent {name}`", f"```text\n{below.format_help().rstrip()}\n```"]
    return "\n\n".join(parts)


def queries() -> str:
    """Give the query language, from the parser's own description."""
    return f"# Queries\n\n{inspect.cleandoc(query.__doc__ or '')}"


def gate_lines() -> str:
    """Return what `tidegate gate` reads and prints."""
    body = inspect.cleandoc(lines.__doc__ or "").partition("\n\n")[2]
    return f"# Lines of the gate alone\n\n[The guide](../guides/guard-another-rollout.md) shows them at work.\n\n{body}"


def _attributes(text: str) -> dict[str, str]:
    """Return what a docstring's `Attributes:` say, by name."""
    told: dict[str, str] = {}
    for line in inspect.cleandoc(text).partition("Attributes:\n")[2].splitlines():
        names, colon, meaning = line.strip().partition(": ")
        if colon:
            told.update(dict.fromkeys(names.split(", "), meaning))
    return told


def _amount(field: str, value: object) -> str:
    """Write a default as it would be written in a file, with its unit."""
    if isinstance(value, int) and not isinstance(value, bool):
        if field.endswith("_s"):
            return amounts.format_duration(value)
        if field.endswith("_bp"):
            return amounts.format_share(value)
        if field in {"body_max", "upload_max", "uploads_quota"}:
            return amounts.format_size(value)
        if field.endswith("_rate") and field.startswith("egress"):
            return f"{amounts.format_size(value)}/s" if value else "none"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def server_settings() -> str:
    """Every key of `tidegate.toml`."""
    told = _attributes(server_config.Settings.__doc__ or "")
    defaults = server_config.Settings()
    rows = (
        (f"`[{table}] {key}`", f"`{value}`" if value else "", told.get(field, ""))
        for (table, key), (field, _) in server_config.KEYS.items()
        for value in [_amount(field, getattr(defaults, field))]
    )
    return "\n\n".join(
        [
            "# tidegate.toml",
            (
                "No file at all is a working configuration. Later wins: the file, its drop-ins `FILE.d/*.toml`, the "
                "environment, options. Every mistake is listed at once, with the nearest known key."
            ),
            _table(("key", "default", "means"), rows),
            "## `[cap]`",
            (
                "Never more than so many devices on their way at once, from permit to outcome and over all rollouts, among those that share an "
                'attribute: `site = 20`, a device\'s own, `"attr.cluster" = 1`, or a group, `"group:NAME" = 2`. A rollout may set lower '
                "ones (`[flow.per]`). A device that was lost goes on counting until it is heard again or taken out of the fleet; it does not "
                "hold up a way back."
            ),
            "## `[[webhook]]` and `[[mail]]`",
            (
                "Who is told when something happens; as many as wanted, each with a name of its own. Events: "
                f"{', '.join(f'`{one}`' for one in EVENTS)} ([guide](../guides/run-an-incident.md#be-told))."
            ),
            _table(("key of [[webhook]]", "default", "means"), _channel(server_config.Webhook)),
            _table(("key of [[mail]]", "default", "means"), _channel(server_config.Mail)),
            "## `[oidc]`",
            (
                "Sign-in by an OpenID provider ([guide](../guides/single-sign-on.md)). `[oidc.groups]` gives a group its roles, "
                '`"gateway-team" = ["rollout-operator@product:gw1", "viewer"]`. Needs `[http] external_url`.'
            ),
            _table(("key", "default", "means"), _channel(Oidc)),
            "## `[[ingest]]`",
            (
                "What a channel demands of a release's origin; as many as wanted, and a release must meet each that guards one of its "
                "channels ([guide](../guides/supply-chain.md)). Naming builders, sources or signers demands provenance."
            ),
            _table(("key", "default", "means"), _ingest()),
        ]
    )


def _channel(kind: type[msgspec.Struct]) -> Iterable[tuple[str, str, str]]:
    told = _attributes(kind.__doc__ or "")
    for field in msgspec.structs.fields(kind):
        value = " ".join(field.default) if isinstance(field.default, tuple) else field.default
        given = "" if field.required or value in ("", 0, msgspec.NODEFAULT) else f"`{value}`"
        yield f"`{field.encode_name}`", given, told.get(field.name, "")


def _ingest() -> Iterable[tuple[str, str, str]]:
    told = _attributes(policy.IngestRule.__doc__ or "")
    defaults = server_config.Ingest()
    for field in server_config.Ingest.__struct_fields__:
        value = _amount(field, getattr(defaults, field))
        yield (f"`{field}`", f"`{value}`" if value else "", told.get(field, ""))


_AMOUNTS: Final[dict[str, Callable[[int], str]]] = {
    "duration": amounts.format_duration,
    "size": amounts.format_size,
    "rate": lambda value: f"{amounts.format_size(value)}/s",
    "interval": amounts.format_duration,
}


def agent_settings() -> str:
    """Every key of `agent.toml`."""

    def default(kind: str, value: object) -> str:
        if value is ... or value is None or value == "":
            return "*required*" if value is ... else ""
        if isinstance(value, int) and kind in _AMOUNTS:
            return f"`{_AMOUNTS[kind](value)}`" if value else "off"
        if kind == "mode":
            return f"`{value:04o}`"
        if isinstance(value, tuple):
            return f"`{', '.join(map(str, value))}`" if value else "any time"
        return f"`{value}`"

    rows = (
        (f"`[{table}] {name}`", kind, default(kind, value))
        for key, (reader, value) in agent_config.KEYS.items()
        for table, _, name in [key.partition(".")]
        for kind in [reader.__name__.strip("_")]
    )
    free = ", ".join(f"`[{name}]`" for name in agent_config.FREE)
    return "\n\n".join(
        [
            "# agent.toml",
            inspect.cleandoc(agent_config.__doc__ or "").split("\n\n", 2)[2],
            ('Durations, sizes and rates carry their unit (`"24h"`, `"16MiB"`, `"100KiB/s"`).'),
            _table(("key", "is a", "default"), rows),
            (
                f"Tables whose keys are the site's own: {free}. Two `[[slot]]` with `name`, `path` and, for files, "
                "`size`. `[component.NAME]` with `path` (default: `components/NAME` in the state directory) is a "
                "[component beside the slots](../guides/components.md) that this agent keeps. `[metric.NAME]` is a "
                "[metric of the device's own](../guides/watch-a-metric.md), read from a `file`, a `command` or `metrics`. `[bootloader.NAME]` holds "
                "what that [boot loader](boot-loaders.md) wants. `[components]` says what else the "
                'device has: `mcu = 40` (a release counter), or `mcu = "40 <sha256 of the image>"` where releases require an image.'
            ),
        ]
    )


def _modules(package: str) -> list[tuple[str, ModuleType]]:
    """Return the back ends of a package with their names, which the package itself gives."""
    names: list[str] = importlib.import_module(package).names()
    return [(name, importlib.import_module(f"{package}.{name}")) for name in names]


def _settings(module: ModuleType) -> str:
    """Write the table of settings that a back end declares, if it declares one."""
    declared = getattr(module, "SETTINGS", None)
    if not declared:
        return ""
    rows = ((f"`{name}`", one.kind, f"`{one.default}`", one.help) for name, one in declared.items())
    return _table(("setting", "is a", "default", "means"), rows)


def incident_report() -> str:
    """The report of an incident as JSON: every struct with its fields."""
    parts = [
        "# The incident report as JSON",
        (
            f"`tidegate incident export NAME --format json` and `GET /api/v1/incidents/NAME/export?format=json` give one object, `{incident.SCHEMA}`. "
            "Fields are added to it, never renamed or taken away. Times are unix seconds. Markdown and HTML tell the same, in the same order."
        ),
    ]
    seen: list[type[msgspec.Struct]] = [incident.IncidentReport]
    for kind in seen:
        hints = get_type_hints(kind)
        rows = []
        told = _attributes(kind.__doc__ or "")
        for field in msgspec.structs.fields(kind):
            found = [one for one in _structs(hints[field.name]) if one not in seen]
            seen += dict.fromkeys(found)
            rows.append(
                (f"`{field.encode_name}`", _type(hints[field.name]), told.get(field.name, ""))
            )
        text = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0]
        parts += [
            f"## {kind.__name__}",
            text.replace("\n", " "),
            _table(("field", "type", "means"), rows),
        ]
    return "\n\n".join(parts)


def _structs(hint: object) -> list[type[msgspec.Struct]]:
    """Return the structs that a type is made of."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [one for part in get_args(hint) for one in _structs(part)]


def _type(hint: object) -> str:
    """Write a type as a reader of JSON knows it."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in args)
    if origin is tuple:
        several = args[-1:] == (Ellipsis,)
        return (
            f"list of {_type(args[0])}" if several else f"[{', '.join(_type(one) for one in args)}]"
        )
    if origin is dict:
        return f"object of {_type(args[1])}"
    if args:
        return " or ".join(_type(one) for one in args)
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(hint, "any")  # type: ignore[call-overload,no-any-return]


def backends(title: str, package: str, remark: str) -> Callable[[], str]:
    """Make a page of one section a back end, from the back ends themselves."""

    def page() -> str:
        parts = [f"# {title}", remark]
        for name, module in _modules(package):
            text = inspect.cleandoc(module.__doc__ or "")
            parts += [f"## `{name}`", text, _settings(module)]
        return "\n\n".join(part for part in parts if part)

    return page


def metrics() -> str:
    """Every metric family, as a scrape shows it."""
    parts = [
        "# Metrics",
        (
            "What `/metrics` shows in Prometheus' text format: to this machine without a token, to others with one that may read the fleet. "
            "[Watch the server](../guides/watch-the-server.md) has the dashboard and the alerts over them. Labels come from closed lists or are bounded "
            f"in number ({ROLLOUTS_MAX} rollouts, {RELEASES_MAX} releases): no device, site or address is one."
        ),
    ]
    said = {
        "server": "## Of the whole server\n\nRead from the database: every process shows the same, so take `max`, not `sum`, over processes.",
        "process": "## Of one process\n\nSince it started; take `sum` over processes. Beside them stand `process_*` and `python_gc_*` of the client library.",
    }
    for of, title in said.items():
        rows = (
            (
                ", ".join(f"`{name}`" for name in one.series),
                one.kind,
                ", ".join(f"`{label}`" for label in one.labels),
                one.text,
            )
            for one in METRICS.values()
            if one.of == of
        )
        parts += [title, _table(("series", "is a", "labels", "means"), rows)]
    return "\n\n".join(parts)


def openapi() -> str:
    """The description of the API, as a server gives it at `/api/v1/openapi.json`."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder), durable=False))
        try:
            told = describe(cast("Any", app.admin))
        finally:
            app.close()
    return json.dumps(told, indent=1, ensure_ascii=False)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "openapi.json": openapi,
    "api-verbs.md": docs_api.page,
    "errors.md": errors,
    "states.md": states,
    "queries.md": queries,
    "gate-lines.md": gate_lines,
    "cli.md": commands,
    "agent-cli.md": agent_commands,
    "tidegate-toml.md": server_settings,
    "agent-toml.md": agent_settings,
    "incident-report.md": incident_report,
    "metrics.md": metrics,
    "gates.md": backends(
        "Gates",
        "tidegate.rollout.gates",
        "Conditions of a rollout's policy (`gates` of a ring, or `guards` of the whole), by name.",
    ),
    "boot-loaders.md": backends(
        "Boot loaders",
        "tidegate.agent.bootloaders",
        "`[bootloader] name` in `agent.toml` is one of these names. "
        "[Add one](../guides/add-a-boot-loader.md).",
    ),
    "installers.md": backends(
        "Installers",
        "tidegate.agent.installers",
        "How a component gets into a slot or beside the slots; the `type` of a release's component is one of these names.",
    ),
    "health-checks.md": backends(
        "Health checks",
        "tidegate.agent.health",
        "Checks of a release's health contract, by name.",
    ),
}
