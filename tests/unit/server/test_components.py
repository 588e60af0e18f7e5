"""Which devices run what, and what is known against it."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.core.supply import paper
from tests.unit.server.chain import Chain, bom
from tests.unit.server.rig import Rig

from tidegate.core.errors import TidegateError
from tidegate.server import advisories, components
from tidegate.server.components import Found, Wanted

OLD, NEW = "3.0.16-1~deb12u1", "3.0.17-1~deb12u3"


@pytest.fixture
def chain(rig: Rig, tmp_path: Path) -> Chain:
    return Chain.on(rig, tmp_path / "lab")


def _find(chain: Chain, name: str, below: str = "", **more: Any) -> Found:
    wanted = Wanted(name=name, below=below, **more)
    found, _ = chain.rig.read(lambda conn: components.find(conn, wanted))
    assert isinstance(found, Found)
    return found


def _ids(chain: Chain, name: str, below: str = "", **more: Any) -> list[str]:
    wanted = Wanted(name=name, below=below)
    found, _ = chain.rig.read(lambda conn: components.devices(conn, wanted, **more))
    return [one.id for one in found]


def _fleet(chain: Chain) -> None:
    """Old openssl on two devices of revision 1 and one of revision 2, the new one on one, a release without a word about its parts on one."""
    chain.install(
        chain.publish(1, {"sbom": bom(OLD, paper.component("busybox", "1.36.1"))}), "d1", "d2"
    )
    chain.install(_again(chain), "d3", rev=2)
    chain.rig.now += 100
    chain.install(chain.publish(2, {"sbom": bom(NEW)}), "d4")
    chain.install(chain.publish(3), "d5")
    chain.rig.device("factory")


def _again(chain: Chain) -> Any:
    rows = chain.rig.app.services.repository._view.newest["product/gw1"]
    from tidegate.core.metadata import parse_targets, signed_targets

    document = parse_targets(rows.body, "product/gw1")
    return signed_targets(document)["gw1/1.1.0/rootfs"].release


def test_devices_that_run_a_part_below_a_version_are_counted_and_listed(chain: Chain) -> None:
    _fleet(chain)
    found = _find(chain, "OpenSSL", "3.0.17")
    assert (found.devices, found.unknown) == (3, 2)
    assert {(one.name, one.version, one.release) for one in found.parts} == {
        ("openssl", OLD, "gw1-1.1.0"),
        ("libssl3", OLD, "gw1-1.1.0"),
    }
    groups = {(one.variant, one.ring): one.devices for one in found.groups}
    assert groups == {("gw1-r1", "fleet"): 2, ("gw1-r2", "fleet"): 1}
    assert all(one.first_at > 0 for one in found.groups)
    assert _ids(chain, "openssl", "3.0.17") == ["d1", "d2", "d3"]
    assert _ids(chain, "openssl", "3.0.17", variant="gw1-r2") == ["d3"]
    assert _ids(chain, "openssl", "3.0.17", ring="pilot") == []
    assert _ids(chain, "openssl") == ["d1", "d2", "d3", "d4"]
    assert _ids(chain, "openssl", until=int(chain.rig.now) - 50) == ["d1", "d2", "d3"]


def test_what_was_updated_is_not_counted_any_more(chain: Chain) -> None:
    _fleet(chain)
    target = chain.publish(4, {"sbom": bom(NEW)})
    rollout = chain.rig.rollout(target, name="r-4")
    device = chain.rig.device("d1", join=False)
    device.seq, device.counter, device.sha256 = 50, 1, _again(chain).install.sha256
    device.log_in()
    chain.update(device, target)
    chain.rig.set_rollout(rollout, state="completed")
    assert _find(chain, "openssl", "3.0.17").devices == 2


def test_counts_of_groups_add_up_to_the_counters(chain: Chain) -> None:
    _fleet(chain)
    for name in ("openssl", "libssl3", "busybox"):
        found = _find(chain, name)
        assert sum(one.devices for one in found.groups) == found.devices
        assert len(_ids(chain, name)) == found.devices


def test_a_package_url_is_looked_for_as_that_package(chain: Chain) -> None:
    _fleet(chain)
    assert _find(chain, "pkg:deb/debian/openssl").devices == 4
    assert _find(chain, f"pkg:deb/debian/openssl@{NEW}").devices == 1
    assert _find(chain, "pkg:rpm/redhat/openssl").devices == 0
    with pytest.raises(TidegateError) as caught:
        _find(chain, "pkg:%zz")
    assert caught.value.code == "request.invalid"


def test_a_part_without_a_version_counts_as_old_and_says_so(chain: Chain) -> None:
    chain.install(
        chain.publish(1, {"sbom": paper.spdx(paper.package("uboot", "NOASSERTION"))}), "d1"
    )
    found = _find(chain, "uboot", "2026.01")
    assert found.devices == 1
    assert found.parts[0].sure is False


def test_names_that_are_near_are_offered(chain: Chain) -> None:
    chain.publish(1, {"sbom": bom(OLD)})
    assert _find(chain, "libssl").near == ("libssl3",)
    assert _find(chain, "100%_\\").near == ()


def test_an_artifact_for_other_hardware_is_not_on_a_device(chain: Chain) -> None:
    """Two images in one release, each with its own bill of materials."""
    parts = (("rootfs-a", 0, 1), ("rootfs-b", 2, 9))
    bundle = chain.bundle(1, parts=parts, signed=False)
    from tidegate.publisher.attach import attach
    from tidegate.publisher.sign import sign_bundle

    for component, version in (("rootfs-a", OLD), ("rootfs-b", NEW)):
        file = bundle.parent / f"{component}.cdx.json"
        file.write_bytes(paper.dumps(bom(version)))
        attach(bundle, [("sbom", file)], component)
    sign_bundle(bundle, chain.lab.signer("product"))
    chain.accept(bundle.read_bytes())
    rows = chain.rig.read(lambda conn: components.find(conn, Wanted(name="openssl"))[0].parts)
    assert {(one.component, one.version) for one in rows} == {("rootfs-a", OLD), ("rootfs-b", NEW)}
    for name, rev in (("d1", 1), ("d2", 2), ("d3", 3)):
        chain.rig.device(name, rev=rev)

    def run(conn: Any) -> None:
        from sqlalchemy import update

        from tidegate.server.store import hot, tables

        conn.execute(update(tables.device).values(running_counter=1))
        for rev in (1, 2, 3):
            hot.add_firmware(conn, "default", "gw1", f"gw1-r{rev}", 1, "1.1.0", 1)

    chain.rig.write(run)
    assert _find(chain, "openssl", "3.0.17").devices == 1
    assert _ids(chain, "openssl", "3.0.17") == ["d1"]
    assert _ids(chain, "openssl") == ["d1", "d2", "d3"]


def test_devices_are_paged_without_losing_or_repeating_one(chain: Chain) -> None:
    names = [f"d{number}" for number in range(7)]
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), *names)
    seen: list[str] = []
    after = 0
    while True:
        found, after = chain.rig.read(
            lambda conn, at=after: components.devices(
                conn, Wanted(name="openssl"), after=at, limit=2
            )
        )
        seen += [one.id for one in found]
        if not after:
            break
    assert seen == names


# --- advisories --------------------------------------------------------------------------------------------------------


def _told(chain: Chain, name: str = "CVE-2025-9230") -> Any:
    return chain.rig.read(lambda conn: advisories.shown(conn, advisories.number_of(conn, name)))


def _number(conn: Any, name: str) -> int:
    return advisories.number_of(conn, name)


@pytest.mark.parametrize("advisory_first", [True, False])
def test_an_advisory_finds_releases_whichever_came_first(
    chain: Chain, advisory_first: bool
) -> None:
    if advisory_first:
        chain.bring(paper.osv())
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1", "d2")
    chain.install(chain.publish(2, {"sbom": bom(NEW)}), "d3")
    if not advisory_first:
        done = chain.bring(paper.osv())
        assert (done.findings, done.devices) == (2, 2)
    found = _told(chain)
    assert (found.devices, found.findings, found.releases) == (2, 2, ("gw1-1.1.0",))
    assert chain.rig.read(advisories.exposed) == (2, 1)


def test_exposure_falls_when_the_fix_arrives(chain: Chain) -> None:
    def exposed() -> int:
        devices, _ = chain.rig.read(advisories.exposed)
        return int(devices)

    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1", "d2")
    assert exposed() == 0
    chain.bring(paper.osv())
    assert exposed() == 2
    target = chain.publish(2, {"sbom": bom(NEW)})
    chain.rig.rollout(target, name="fix")
    device = chain.rig.device("d1", join=False)
    device.seq, device.counter, device.sha256 = 50, 1, _again(chain).install.sha256
    device.log_in()
    chain.update(device, target)
    assert exposed() == 1


def test_the_same_file_again_changes_nothing_and_a_newer_one_replaces_it(chain: Chain) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1")
    chain.bring(paper.osv())
    chain.bring(paper.osv())
    assert chain.rig.read(lambda conn: len(advisories.listed(conn)[0])) == 1
    chain.bring(paper.osv(fixed="1.0"))
    assert _told(chain).devices == 0
    chain.bring(paper.osv(withdrawn="2026-11-01T00:00:00Z"))
    assert _told(chain).withdrawn is True


def test_a_statement_silences_a_finding_and_says_why(chain: Chain) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1")
    chain.bring(paper.osv())
    done = chain.bring(paper.openvex(product="pkg:generic/gw1@1.1.0"))
    assert (done.findings, done.silenced, done.devices) == (2, 2, 0)
    found = _told(chain)
    assert (found.devices, found.silenced) == (0, 2)
    number = found.number
    for one in chain.rig.read(lambda conn: advisories.findings(conn, number)):
        assert (one.status, one.justification) == (
            "not_affected",
            "vulnerable_code_not_in_execute_path",
        )
    later = paper.openvex(
        product="pkg:generic/gw1@1.1.0", status="affected", at="2026-11-09T00:00:00Z"
    )
    later["@id"] = "https://acme.example/vex/later"
    chain.bring(later)
    assert _told(chain).devices == 1


def test_a_statement_attached_to_one_release_does_not_silence_another(chain: Chain) -> None:
    chain.bring(paper.osv())
    vex = paper.openvex(product="https://acme.example/whatever")
    chain.install(chain.publish(1, {"sbom": bom(OLD), "vex": vex}), "d1")
    chain.install(chain.publish(2, {"sbom": bom(OLD)}), "d2")
    found = _told(chain)
    assert (found.devices, found.silenced, found.releases) == (1, 2, ("gw1-1.2.0",))


def test_importing_a_statement_again_replaces_what_it_said(chain: Chain) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1")
    chain.bring(paper.osv())
    chain.bring(paper.openvex(product="pkg:generic/gw1"))
    assert _told(chain).devices == 0
    chain.bring(paper.openvex(product="pkg:generic/gw2"))
    assert _told(chain).devices == 1


def test_csaf_brings_advisory_and_statement_in_one_file(chain: Chain) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1")
    done = chain.bring(paper.csaf())
    assert (done.advisories, done.devices) == (("ACME-2026-007",), 1)
    assert _told(chain, "cve-2025-9230").id == "ACME-2026-007"


def test_a_statement_stands_in_for_an_advisory_until_one_comes(chain: Chain) -> None:
    chain.install(chain.publish(1, {"sbom": bom(OLD)}), "d1")
    chain.install(chain.publish(2, {"sbom": bom(NEW)}), "d2")
    said = paper.openvex(
        status="affected", product="pkg:generic/gw1", part=f"pkg:deb/debian/openssl@{OLD}"
    )
    for _ in range(2):
        assert chain.bring(said).devices == 1
        assert (_told(chain).format, _told(chain).devices) == ("openvex", 1)
    chain.bring(paper.osv(fixed="9"))
    assert (_told(chain).format, _told(chain).devices) == ("osv", 2)
    chain.bring(said)
    assert _told(chain).format == "osv"
    chain.bring(paper.openvex(vulnerability="CVE-2", status="affected"))
    chain.bring(paper.osv("GHSA-2", aliases=["CVE-2"]))
    assert _told(chain, "CVE-2").id == "GHSA-2"
    chain.rig.write(lambda conn: advisories.forget(conn, _number(conn, "GHSA-2")))
    chain.bring(paper.openvex(vulnerability="CVE-1", status="fixed"))
    assert chain.rig.read(lambda conn: len(advisories.listed(conn)[0])) == 1


def test_a_forgotten_advisory_is_gone(chain: Chain) -> None:
    chain.publish(1, {"sbom": bom(OLD)})
    chain.bring(paper.osv())
    number = _told(chain).number
    chain.rig.write(lambda conn: advisories.forget(conn, number))
    with pytest.raises(TidegateError) as caught:
        _told(chain)
    assert caught.value.code == "request.not_found"
    assert chain.rig.read(advisories.exposed) == (0, 0)
