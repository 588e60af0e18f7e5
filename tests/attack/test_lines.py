"""The list of attacks on the server's API, line for line, each with the tests that show what becomes of it; and the lines that nothing else showed.

A name that is not there any more turns this red: whoever takes a test away says here what stands in its place.
"""

import ast
import json
import socket
from pathlib import Path
from typing import Any, Final

import pytest
from litestar import Litestar
from tests.attack.test_device_api import nonce_of, session_with
from tests.unit.server.caller import ask_over, routes
from tests.unit.server.rig import Rig

from tidegate.server.actors import Actor
from tidegate.server.api.examples import PATHS
from tidegate.server.operations import auth_of

TESTS: Final = Path(__file__).parents[1]
ROOT: Final = Actor(name="root", role="admin")
#: Attack → files, and the tests in them.
LINES: Final[dict[str, dict[str, str]]] = {
    "device A reads or reports for B": {
        "attack/test_device_api": "reports_nothing_for_another gets_no_permit_for_anothers_update session_for_another_device_is_not_opened",
        "e2e/test_bad_input": "events_of_another_device_are_never_counted",
    },
    "token of a revoked, re-keyed or other tenant's device": {
        "attack/test_device_api": "tokens_of_revoked_and_of_changed_keys_are_over_at_once",
        "unit/server/test_tokens": "token_of_another_tenant_or_with_another_days_key_is_refused",
    },
    "expired or future token": {
        "unit/server/test_tokens": "says_what_was_put_into_it_until_it_expires token_from_the_future_is_refused",
    },
    "forged key id": {
        "attack/test_device_api": "token_with_anything_wrong_in_it_is_refused",
        "unit/server/test_single_sign_on": "signature_that_does_not_hold_opens_nothing keys_are_not_asked_for_at_every_unknown_name",
    },
    "replay of a session request": {
        "attack/test_device_api": "session_request_is_good_once_also_across_a_restart",
        "attack/test_lines": "session_request_that_one_process_took_is_taken_by_no_other",
    },
    "nonce used again": {"attack/test_device_api": "nonce_is_good_for_one_request_for_a_short_while"},
    "enrolment with a used-up, expired or other product's claim": {
        "attack/test_device_api": "no_claim_that_is_not_good_lets_anybody_in",
    },
    "a clone": {
        "unit/server/test_identity": "clone_is_put_into_quarantine",
        "e2e/test_clones": "copied_board_is_found_within_the_hour",
    },
    "a device with a static token at the native API": {
        "attack/test_lines": "static_token_of_another_protocol_opens_nothing",
    },
    "flood of reports, poisoned metrics": {
        "attack/test_device_api": "flood_of_reports_is_answered_plainly one_device_that_lies_stops_no_rollout no_device_has_lived_longer",
    },
    "oversized, slow, endless, malformed bodies": {
        "attack/test_device_api": "oversized_body_is_refused_before_it_was_read body_that_drips_or_stalls",
        "e2e/test_bad_input": "endless_chunked_body_ends_at_the_limit slow_bodies_keep_nobody_waiting every_spoiled_body",
        "e2e/test_bad_connections": "heads_that_only_drip endless_chunked_body head_without_end what_is_malformed_costs_its_sender",
    },
    "injection by every text of a device": {
        "attack/test_device_words": "nothing_that_a_device_says_becomes_markup",
        "unit/cli/test_supply": "no_cell_of_an_export_is_a_formula",
        "unit/server/test_logs": "line_stays_one_line",
    },
    "path traversal": {
        "attack/test_archives": "hostile_archive_is_refused_and_nothing_is_made_outside",
        "e2e/test_bad_input": "paths_lead_nowhere_but_where_they_should",
        "unit/core/test_bundle": "hostile_manifest_is_refused",
    },
    "requests that the server is talked into": {
        "attack/test_lines": "nothing_that_is_told_to_the_api_makes_the_server_call_anybody",
        "unit/server/test_webhook": "only_configured_addresses_are_called redirect_is_not_followed",
    },
    "every object times every role": {
        "unit/server/test_roles_and_routes": "every_route_is_open_to_the_roles thing_out_of_scope_is_not_there no_list_tells_of_what_is_out_of_scope",
        "unit/server/test_guards_removed": "without_the_guard_a_stranger_is_let_through",
    },
    "approver is requester, edit after approval, approval expired": {
        "unit/server/test_rollouts_admin": "beyond_the_limit_a_second_person second_account_of_the_same_person edit_voids what_nobody_approves_in_time",
        "unit/server/test_consent": "what_could_make_a_second_person_takes_one act_that_fails_leaves_its_consent",
    },
    "forms from another site": {
        "unit/server/web/test_door": "form_from_another_site_is_refused",
        "unit/server/web/test_router": "form_without_its_own_token_changes_nothing form_from_another_site_changes_nothing",
    },
    "single sign-on: state, nonce, algorithm none, other issuers": {
        "unit/server/test_single_sign_on": "claim_that_does_not_hold code_of_another_sign_in name_of_another_provider signature_that_does_not_hold",
    },
    "passwords sprayed over names, addresses and processes": {
        "attack/test_guessing": "many_guesses_at_once network_of_ipv6 many_addresses_guess processes_tell_one_another",
        "unit/server/test_auth": "one_address_cannot_try_many_names crowd_that_guesses_at_one_name",
    },
    "secrets in logs": {
        "unit/server/test_logs": "no_secret_is_ever_logged",
        "unit/server/test_auth": "no_secret_stands_in_the_database",
    },
    "ten thousand connections": {"e2e/test_bad_connections": "one_address_holds_so_many_connections"},
    "disk full": {"e2e/test_bad_surroundings": "full_disk_is_said_and_nothing_acknowledged_is_lost"},
    "object store slow, refusing, lying": {
        "contract/test_bad_store": "slow_store_gives_its_bytes refusal_is_for_whoever_configured_it store_that_gives_another_range store_that_keeps_less",
    },
    "clock stepped": {
        "unit/server/test_gatekeeper_clock": "clock_that_steps_back_and_forth",
        "unit/server/test_stopping": "clock_that_steps_back_changes_nothing_about_a_halt",
        "unit/server/test_audit": "heads_are_signed_although_the_clock_was_set_back",
    },
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_list_has_tests_that_are_there(line: str) -> None:
    for file, words in LINES[line].items():
        tree = ast.parse((TESTS / f"{file}.py").read_text())
        names = [one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
        for word in words.split():
            assert [one for one in names if one.startswith("test_") and word in one], (file, word)


@pytest.mark.parametrize("scheme", ["TargetToken", "GatewayToken", "Basic", "Token"])
def test_a_static_token_of_another_protocol_opens_nothing(rig: Rig, scheme: str) -> None:
    rig.publish_trust()
    device = rig.device("d1")
    _, known = auth_of(rig.app.services).create_token("t", "admin", ROOT, int(rig.now))
    for secret in (device.token, known, "d1", ""):
        for method, path in (("GET", "poll"), ("POST", "events"), ("POST", "assignment")):
            answer = rig.ask(method, f"/d/v1/{path}", {}, authorization=f"{scheme} {secret}")
            assert answer.status == 401, (scheme, path)


def test_a_session_request_that_one_process_took_is_taken_by_no_other(tmp_path: Path) -> None:
    one = Rig(tmp_path / "data", shared=True)
    two = Rig(tmp_path / "data", shared=True, offline=one.offline)
    try:
        device = one.device("d1")
        request = session_with(device, nonce_of(one))
        assert one.ask("POST", "/d/v1/session", request).status == 200
        assert two.ask("POST", "/d/v1/session", request).code == "session.expired"
        assert one.ask("POST", "/d/v1/session", request).code == "session.expired"
    finally:
        two.close()
        one.close()


def _with_texts(value: Any, text: str) -> Any:
    """Return a body with every text in it replaced."""
    if isinstance(value, dict):
        return {key: _with_texts(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_texts(one, text) for one in value]
    return text if isinstance(value, str) else value


def test_nothing_that_is_told_to_the_api_makes_the_server_call_anybody(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device("gw-0017")
    _, token = auth_of(rig.app.services).create_token("t", "admin", ROOT, int(rig.now))
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    app: Any = rig.app.admin
    assert isinstance(app, Litestar)

    def call(method: str, path: str, body: bytes) -> Any:
        asked = ask_over(rig.app, method, path, headers, body, b"")
        return rig.loop.run_until_complete(asked)

    document = json.loads(call("GET", "/api/v1/openapi.json", b"").body)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        told = 0
        for route in routes(app, "/api/v1"):
            operation = document["paths"].get(
                route.path.replace(":str}", "}").replace(":int}", "}")
            )
            example = (operation or {}).get(route.method.lower(), {}).get("requestBody", {})
            body = example.get("content", {}).get("application/json", {}).get("example")
            if route.method == "GET" or body is None:
                continue
            noun = route.path.split("/")[3]
            path = route.named(
                name=str(PATHS.get((noun, "name"), "x")), number="1", key="0" * 64, digest="0" * 64
            )
            for sent in (body, _with_texts(body, url)):
                assert call(route.method, path, json.dumps(sent).encode()).status < 500, route
                told += 1
        rig.app.tick()
        assert told > 60
        with pytest.raises(BlockingIOError):
            listener.accept()
