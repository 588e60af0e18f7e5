"""Our own port of the 53 scenarios of the TUF project's conformance suite, always on: each against the agent's workflow, and step for step beside python-tuf's.

The names and what each is about come from that suite's list; the code is not copied. The suite itself runs in `test_suite.py`.
"""

import contextlib
from pathlib import Path

import pytest
from tests.conformance.clients import Ours, Theirs
from tests.conformance.scenario import SCENARIOS, Lab, cases

NAMES = {
    "basics": "basic_refresh_requests basic_refresh_trusted_data basic_metadata_hash_support metadata_bytes_match implicit_refresh custom_fields "
    "deprecated_keyid_hash_algorithms keytype_and_scheme static_repository faketime",
    "root": "invalid_initial_root unsigned_initial_root root_rotation root_expired expired_local_root non_root_rotations",
    "timestamp": "timestamp_404 timestamp_expired expired_local_timestamp timestamp_content_changes new_timestamp_version_rollback "
    "new_timestamp_fast_forward_recovery",
    "snapshot": "snapshot_404 snapshot_expired snapshot_rollback snapshot_hash_mismatch snapshot_does_not_meet_threshold snapshot_has_too_few_keys "
    "new_snapshot_fast_forward_recovery",
    "targets": "targets_404 targets_expired targets_rollback targets_hash_mismatch targets_fast_forward_recovery targets_role_removal "
    "multiple_changes_to_target",
    "delegations": "delegation_not_in_snapshot cached_role_is_verified_against_current_delegator graph_traversal targetfile_search unusual_role_name",
    "signatures and types": "unsigned_metadata invalid_sig_in_valid_metadata duplicate_keys duplicate_sig_keyids incorrect_metadata_type "
    "url_and_metadata_version_mismatch",
    "downloads": "client_downloads_expected_file client_downloads_expected_file_in_sub_dir artifact_cache download_with_hash_algorithms "
    "download_with_unknown_hash_algorithm repository_substitutes_target_file",
}


def test_no_scenario_of_the_list_is_missing() -> None:
    listed = {name for names in NAMES.values() for name in names.split()}
    assert len(listed) == 53
    assert set(SCENARIOS) == listed


@pytest.mark.filterwarnings("ignore:keytype 'ecdsa-sha2-nistp256' is deprecated")
@pytest.mark.parametrize(("name", "case"), cases())
def test_the_agents_workflow_does_as_the_suite_expects_and_as_python_tuf_does(
    name: str, case: str, folder: Path
) -> None:
    scenario = SCENARIOS[name]
    ours, theirs = Lab(folder / "ours", Ours), Lab(folder / "theirs", Theirs)
    scenario.run(ours, scenario.cases[case])
    with contextlib.suppress(AssertionError):
        scenario.run(theirs, scenario.cases[case])
    assert ours.trace
    assert ours.trace == theirs.trace, f"ours: {ours.problem!r}, theirs: {theirs.problem!r}"
