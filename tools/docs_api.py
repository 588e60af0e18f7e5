"""The commands and the pages beside the routes of the API: what each of them calls, and why some call nothing. A test holds both sides to be whole."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from tidegate import cli

DESCRIPTION: Final = Path(__file__).resolve().parent.parent / "docs/reference/openapi.json"
#: Command → operations of the API (`operationId`).
CALLS: Final[dict[str, tuple[str, ...]]] = {
    "audit checkpoint": ("audit_checkpoint",),
    "audit export": ("audit_export", "audit_checkpoints_list"),
    "audit list": ("audit_entries_list",),
    "audit watch": ("audit_checkpoint", "audit_proofs_consistency"),
    "advisories forget": ("advisories_forget",),
    "advisories import": ("advisories_create",),
    "advisories list": ("advisories_list",),
    "advisories show": ("advisories_show", "advisories_findings_list"),
    "claim create": ("claims_create",),
    "claim list": ("claims_list",),
    "claim revoke": ("claims_revoke",),
    "components find": ("components_list", "components_devices_list"),
    "device accept": ("devices_accept",),
    "device approve": ("devices_accept",),
    "device clear": ("devices_clear",),
    "device decommission": ("devices_decommission",),
    "device hold": ("devices_hold",),
    "device list": ("devices_list",),
    "device log": ("devices_log_list",),
    "device logs": ("devices_logs_list", "devices_logs_show"),
    "device pending": ("devices_list",),
    "device preauthorize": ("preauthorized_create",),
    "device preauthorized": ("preauthorized_list", "preauthorized_remove"),
    "device reject": ("devices_reject",),
    "device rekey": ("devices_rekey",),
    "device revoke": ("devices_revoke",),
    "device show": ("devices_show", "devices_updates_list"),
    "device swap": ("devices_swap",),
    "device tag": ("devices_show", "devices_tags_replace"),
    "device unhold": ("devices_unhold",),
    "device why": ("devices_why",),
    "group create": ("groups_create",),
    "group edit": ("groups_replace",),
    "group list": ("groups_list",),
    "group remove": ("groups_remove",),
    "group show": ("groups_show", "devices_list"),
    "halt": ("rollouts_halt", "rollouts_list"),
    "incident close": ("incidents_close",),
    "incident cohort": ("incidents_cohort_list",),
    "incident edit": ("incidents_edit",),
    "incident export": ("incidents_export",),
    "incident followup": (
        "incidents_followups",
        "incidents_followups_done",
        "incidents_followups_edit",
    ),
    "incident grant draft": ("incidents_grants",),
    "incident grant publish": ("incidents_grants_submit",),
    "incident grant show": ("incidents_grants_list", "incidents_grants_show"),
    "incident list": ("incidents_list",),
    "incident mitigate": ("incidents_mitigate",),
    "incident note": ("incidents_notes",),
    "incident open": ("incidents_create",),
    "incident publish": ("incidents_show", "incidents_publish"),
    "incident publish-update": ("incidents_publish_update",),
    "incident reopen": ("incidents_reopen",),
    "incident show": ("incidents_show",),
    "incident unpublish": ("incidents_unpublish",),
    "job cancel": ("jobs_cancel",),
    "job list": ("jobs_list",),
    "job show": ("jobs_show", "jobs_items_list"),
    "job wait": ("jobs_show",),
    "keys calendar": ("calendar_list",),
    "notify list": ("notifications_list",),
    "notify replay": ("notifications_replay",),
    "notify test": ("notifications_test",),
    "product publish": ("bundles_create",),
    "release list": ("releases_list",),
    "release publish": (
        "uploads_create",
        "uploads_change",
        "uploads_links",
        "uploads_show",
        "uploads_complete",
        "ingest_rules_list",
    ),
    "release fetch": ("releases_show", "releases_attachments_show"),
    "release recall": ("releases_recall",),
    "release show": ("releases_show",),
    "rollout activate": ("rollouts_activate",),
    "rollout advance": ("rollouts_advance",),
    "rollout approve": ("rollouts_approve", "approvals_approve"),
    "rollout cancel": ("rollouts_cancel",),
    "rollout create": ("rollouts_create",),
    "rollout decline": ("approvals_decline",),
    "rollout devices": ("rollouts_updates_list",),
    "rollout edit": ("rollouts_show", "rollouts_replace", "rollouts_change"),
    "rollout evidence": ("rollouts_evidence", "rollouts_evidence_replay"),
    "rollout explain": ("rollouts_explain",),
    "rollout fallback": ("rollouts_fallback",),
    "rollout halt": ("rollouts_halt",),
    "rollout isolate": ("rollouts_isolate",),
    "rollout list": ("rollouts_list",),
    "rollout log": ("rollouts_log_list",),
    "rollout pause": ("rollouts_pause",),
    "rollout readmit": ("rollouts_readmit",),
    "rollout requests": ("approvals_list",),
    "rollout resume": ("rollouts_resume",),
    "rollout series": ("rollouts_series_list",),
    "rollout show": ("rollouts_show",),
    "rollout start": ("rollouts_start",),
    "rollout stragglers": ("rollouts_stragglers_list",),
    "rollout wait": ("rollouts_show", "stream"),
    "root begin": ("online_keys",),
    "root publish": ("root_create",),
    "status": ("status", "series"),
    "targets publish": ("targets_create",),
    "token create": ("tokens_create",),
    "token list": ("tokens_list",),
    "token revoke": ("tokens_remove",),
    "upload abort": ("uploads_remove",),
    "upload list": ("uploads_list",),
    "user create": ("accounts_create",),
    "user edit": ("accounts_change",),
    "user end-session": ("sessions_remove",),
    "user sessions": ("sessions_list",),
    "user consent": ("consents_approve", "consents_decline"),
    "user requests": ("consents_list",),
    "user link": ("accounts_ticket",),
    "tenant add": ("tenants_create",),
    "tenant edit": ("tenants_change",),
    "tenant list": ("tenants_list",),
    "tenant purge": ("tenants_purge",),
    "tenant remove": ("tenants_remove",),
    "tenant restore": ("tenants_restore",),
    "tenant resume": ("tenants_resume",),
    "tenant show": ("tenants_show",),
    "tenant suspend": ("tenants_suspend",),
    "user list": ("accounts_list",),
    "user reset": ("accounts_reset",),
    "user reset-second-factor": ("accounts_reset_second_factor",),
}
_FILES: Final = "works on files that no server may need to see"
_KEYS: Final = "works with secret keys, which never come near a server"
_HERE: Final = "is about this machine, or runs the server itself"
#: Command, or the beginning of commands → why it calls no route.
LOCAL: Final[dict[str, str]] = {
    "keys": _KEYS,
    "root": _FILES,
    "targets": _FILES,
    "product": _FILES,
    "release": _FILES,
    "incident grant": _KEYS,
    "sim": "simulates",
    "demo": "simulates",
    "bench": "measures a server of its own",
    "drill": "plays with a copy of the server's data",
    "gate": "is a gate for other systems' rollouts; needs no server",
    "doctor": _HERE,
    "init": _HERE,
    "serve": _HERE,
    "db": _HERE,
    "backup": _HERE,
    "restore": _HERE,
    "audit verify": "follows an exported log, so as not to take the server's word for it",
    "explain": "prints a page of the reference",
    "help": "prints a page of the reference",
    "version": _HERE,
}
#: Form of the pages (path, with the verbs that it posts) → operations of the API.
FORMS: Final[dict[str, tuple[str, ...]]] = {
    "/incidents": ("incidents_create",),
    "/releases": ("bundles_create",),
    "/rollouts": ("rollouts_create",),
    "/rollouts/{}/edit": ("rollouts_change",),
    "/advisories": ("advisories_create",),
    "/notifications/test": ("notifications_test",),
    "/notifications/{}/replay": ("notifications_replay",),
    "/requests/{}/{}": ("approvals_approve", "approvals_decline"),
    "/devices/{}/{}": (
        "devices_accept",
        "devices_reject",
        "devices_hold",
        "devices_unhold",
        "devices_revoke",
        "devices_tags_replace",
    ),
    "/incidents/{}/{}": (
        "incidents_notes",
        "incidents_followups",
        "incidents_followups_done",
        "incidents_followups_edit",
        "incidents_edit",
        "incidents_mitigate",
        "incidents_close",
        "incidents_reopen",
        "incidents_publish",
        "incidents_unpublish",
    ),
    "/consents/{}/{}": ("consents_approve", "consents_decline"),
    "/releases/{}/recall": ("releases_recall",),
    "/rollouts/{}/{}": (
        "rollouts_halt",
        "rollouts_start",
        "rollouts_pause",
        "rollouts_resume",
        "rollouts_advance",
        "rollouts_activate",
        "rollouts_isolate",
        "rollouts_readmit",
        "rollouts_cancel",
        "rollouts_fallback",
    ),
}
#: Beginning of a form's path → why the API has nothing of the kind.
FORMS_ALONE: Final[dict[str, str]] = {
    "/sign-in": "makes a browser's session; a program has a token",
    "/sign-out": "ends a browser's session; `tokens_remove` ends a token",
    "/people": "accounts and what they may do; over the API `accounts_*` and `sessions_*`",
    "/tokens": "over the API `tokens_create` and `tokens_remove`",
    "/account": "a person's own second factor and sessions; a program has a token",
}
#: Operation, or the beginning of some, that neither a command nor a form has to call → why it is there.
ROUTES_ALONE: Final[dict[str, str]] = {
    "approvals_show": "for programs that follow one request",
    "audit": "for archives, witnesses and checks of one's own; the page of the log reads the same rows",
    "events": "for programs that fold the log themselves, or follow what happens",
    "jobs_create": "for scripts that act on many devices; a person acts on one at a time, and follows a job",
    "me": "for programs that ask what their token may do",
    "openapi": "the description itself",
}


def commands() -> dict[str, click.Command]:
    """Return every command that can be given, by its words without `tidegate`."""
    return dict(_leaves(cli.program, ()))


def why_local(command: str) -> str:
    """Return why a command calls no route; empty where that is not said."""
    words = command.split()
    tries = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((LOCAL[one] for one in tries if one in LOCAL), "")


def operations() -> list[str]:
    """Return every operation of the API, as the description has them that stands in the repository."""
    paths = json.loads(DESCRIPTION.read_text())["paths"]
    return sorted(
        one["operationId"]
        for path, item in paths.items()
        for one in item.values()
        if path.startswith("/api/v1/")
    )


def unexplained() -> list[str]:
    """Return commands that call nothing without a reason, and operations that nothing calls without one."""
    named = {one for calls in (*CALLS.values(), *FORMS.values()) for one in calls}
    alone = tuple(ROUTES_ALONE)
    silent = [one for one in commands() if one not in CALLS and not why_local(one)]
    return silent + [one for one in operations() if one not in named and not one.startswith(alone)]


def page() -> str:
    """The page: commands, forms and routes side by side."""
    if left := unexplained():
        sys.exit("tools/docs_api.py has no line for: " + ", ".join(left))
    parts = [
        "# Commands beside the API",
        (
            "What each command calls, by the `operationId` of [the API](openapi.json). `tidegate … --json` prints what the route answers. A command "
            "that calls nothing says why; so does a route that no command needs."
        ),
        "| command | calls |\n|---|---|",
    ]
    lines = []
    for one in commands():
        calls = ", ".join(f"`{name}`" for name in CALLS.get(one, ()))
        lines.append(f"| `{one}` | {calls or why_local(one)} |")
    parts[-1] += "\n" + "\n".join(lines)
    forms = [
        f"| `{path}` | {', '.join(f'`{one}`' for one in calls)} |" for path, calls in FORMS.items()
    ]
    forms += [f"| `{path}…` | {why} |" for path, why in FORMS_ALONE.items()]
    parts += [
        "## Forms of the pages",
        "| form | the same over the API |\n|---|---|\n" + "\n".join(forms),
    ]
    alone = [f"| `{name}…` | {why} |" for name, why in ROUTES_ALONE.items()]
    parts += ["## Routes beside those", "| route | what for |\n|---|---|\n" + "\n".join(alone)]
    return "\n\n".join(parts)


def _leaves(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None and not found.hidden:
            yield from _leaves(found, (*words, name))
