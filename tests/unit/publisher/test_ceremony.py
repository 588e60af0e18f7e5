import json
from pathlib import Path

import pytest
from tests.unit.core.repo import DAY, NOW, ring, signer

from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.keys import Signer
from tidegate.core.metadata import (
    RoleKeys,
    keys_of,
    parse_root,
    parse_targets,
    products_of,
    root_extra,
)
from tidegate.publisher.ceremony import (
    RootSpec,
    SignatureFile,
    begin_root,
    begin_targets,
    check_root,
    check_targets,
    merge,
    read_ceremony,
    root_progress,
    sign_draft,
    words_of,
)
from tidegate.publisher.keyfile import new_key
from tidegate.publisher.words import WORDS, same_words

ADA, BEN, CLEO = (signer(name) for name in ("ada", "ben", "cleo"))
T1, T2 = signer("t1"), signer("t2")


def spec(**roles: RoleKeys) -> RootSpec:
    usual = {
        "root": ring(ADA, BEN, CLEO, threshold=2),
        "targets": ring(T1, T2, threshold=2),
        "incident": ring(signer("gus"), signer("hana"), threshold=2),
        **{
            name: ring(signer(f"online {name}"))
            for name in ("snapshot", "timestamp", "director", "audit")
        },
    }
    return RootSpec(tenant="acme", expires_s=365 * DAY, roles={**usual, **roles})


def code_of(made: RootSpec) -> str:
    with pytest.raises(PublisherError) as caught:
        begin_root(made, previous=None, now=NOW)
    return caught.value.code


def sigs(draft: bytes, *signers: Signer) -> list[SignatureFile]:
    return [sign_draft(draft, one, "holder", now=NOW) for one in signers]


def first_root() -> bytes:
    draft = begin_root(spec(), previous=None, now=NOW)
    return merge(draft, sigs(draft, ADA, BEN), [keys_of(parse_root(draft), "root")])


def test_two_of_three_make_a_root_that_devices_accept() -> None:
    draft = begin_root(spec(), previous=None, now=NOW)
    holders = [keys_of(parse_root(draft), "root")]
    one = merge(draft, sigs(draft, ADA), holders)
    assert root_progress(one, None)[0].missing == 1
    with pytest.raises(PublisherError) as caught:
        check_root(one, previous=None, now=NOW)
    assert caught.value.code == "meta.incomplete"
    both = merge(one, sigs(draft, CLEO), holders)
    assert check_root(both, previous=None, now=NOW).version == 1


def test_the_words_do_not_change_with_signatures() -> None:
    draft = begin_root(spec(), previous=None, now=NOW)
    assert words_of(first_root()) == words_of(draft)
    assert same_words(words_of(draft).upper().replace(" ", "  "), words_of(draft))
    other = begin_root(spec(root=ring(ADA, BEN, threshold=2)), previous=None, now=NOW)
    assert not same_words(words_of(other), words_of(draft))


def test_the_list_has_one_word_for_every_byte() -> None:
    assert len(set(WORDS)) == 256
    assert all(word.isalpha() and word.islower() for word in WORDS)


def test_a_signature_on_another_draft_is_refused() -> None:
    draft = begin_root(spec(), previous=None, now=NOW)
    other = begin_root(spec(), previous=None, now=NOW + 1)
    holders = [keys_of(parse_root(draft), "root")]
    with pytest.raises(PublisherError, match=r"sig\.mix_and_match"):
        merge(draft, sigs(other, ADA), holders)
    with pytest.raises(PublisherError, match=r"sig\.unknown_key"):
        merge(draft, sigs(draft, signer("mallory")), holders)
    forged = [
        SignatureFile(name="x", keyid=ADA.public.keyid, signature="00" * 64, words=words_of(draft))
    ]
    with pytest.raises(PublisherError, match=r"sig\.threshold"):
        merge(draft, forged, holders)


def test_one_public_key_under_two_names_is_refused() -> None:
    assert code_of(spec(root=ring(ADA, ADA, BEN, threshold=2))) == "key.duplicate"


def test_a_threshold_that_cannot_be_met_is_refused() -> None:
    assert code_of(spec(root=ring(ADA, BEN, threshold=3))) == "sig.threshold"


@pytest.mark.parametrize("role", ["targets", "incident", "snapshot", "director", "audit"])
def test_a_root_key_has_no_other_office(role: str) -> None:
    assert code_of(spec(**{role: ring(ADA)})) == "key.trust_levels"


def test_a_later_root_needs_the_old_holders_and_the_new() -> None:
    first = first_root()
    dora = signer("dora")
    draft = begin_root(spec(root=ring(BEN, dora, threshold=2)), previous=first, now=NOW)
    holders = [keys_of(parse_root(one), "root") for one in (draft, first)]
    new_only = merge(draft, sigs(draft, BEN, dora), holders)
    with pytest.raises(PublisherError) as caught:
        check_root(new_only, previous=first, now=NOW)
    assert caught.value.code == "meta.incomplete"
    all_of_them = merge(new_only, sigs(draft, ADA), holders)
    assert check_root(all_of_them, previous=first, now=NOW).version == 2


def test_targets_gain_a_product_and_keep_the_others() -> None:
    gw1, gw2 = ring(signer("p1")), ring(signer("p2"), signer("p3"), threshold=2)
    first = begin_targets({"gw1": gw1}, previous=None, now=NOW)
    second = begin_targets({"gw2": gw2}, previous=first, now=NOW)
    document = parse_targets(second)
    assert (document.version, products_of(document)) == (2, ("gw1", "gw2"))
    assert keys_of(document, "product/gw1") == gw1


def test_targets_are_checked_against_root() -> None:
    root = first_root()
    draft = begin_targets({"gw1": ring(signer("p1"))}, previous=None, now=NOW)
    done = merge(draft, sigs(draft, T1, T2), [keys_of(parse_root(root), "targets")])
    assert check_targets(done, root=root, previous=None, now=NOW).version == 1
    mixed = begin_targets({"gw1": ring(T1)}, previous=None, now=NOW)
    mixed = merge(mixed, sigs(mixed, T1, T2), [keys_of(parse_root(root), "targets")])
    with pytest.raises(PublisherError) as caught:
        check_targets(mixed, root=root, previous=None, now=NOW)
    assert caught.value.code == "key.trust_levels"


def test_the_ceremony_file_names_the_keys(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "t", "i"):
        new_key(tmp_path / f"{name}.key", name, "twelve letters", memory_kib=64)
    online = {
        name: signer(f"online {name}").public.to_dict()
        for name in ("snapshot", "timestamp", "director", "audit")
    }
    (tmp_path / "online.pub.json").write_text(json.dumps(online))
    path = tmp_path / "ceremony.toml"
    path.write_text(
        'tenant = "acme"\nonline = "online.pub.json"\n'
        '[root]\nneeds = 2\nkeys = ["a.pub.json", "b.pub.json", "c.pub.json"]\n'
        '[targets]\nkeys = ["t.pub.json"]\n[incident]\nkeys = ["i.pub.json"]\n'
    )
    found = read_ceremony(path)
    assert (found.tenant, found.roles["root"].threshold, len(found.roles["root"].keys)) == (
        "acme",
        2,
        3,
    )
    drafted = parse_root(begin_root(found, previous=None, now=NOW))
    assert (drafted.version, root_extra(drafted).strict_fallback) == (1, False)
    path.write_text(path.read_text().replace("[incident]", "[incident]\nstrict = true"))
    strict = parse_root(begin_root(read_ceremony(path), previous=None, now=NOW))
    assert root_extra(strict).strict_fallback
    path.write_text(path.read_text().replace("strict = true", "strict = 1"))
    with pytest.raises(ConfigError, match="strict"):
        read_ceremony(path)
    path.write_text('online = "nowhere.json"\n[root]\n')
    with pytest.raises(ConfigError):
        read_ceremony(path)
