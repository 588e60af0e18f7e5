"""Documents as tools of the trade write them, small: bills of materials, provenance, advisories, statements."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from tidegate.core.keys import Signer
from tidegate.core.supply.provenance import PAYLOAD_TYPE

OPENSSL = "pkg:deb/debian/openssl@3.0.16-1~deb12u1?arch=arm64&distro=debian-12"
LIBSSL = "pkg:deb/debian/libssl3@3.0.16-1~deb12u1?arch=arm64&distro=debian-12&upstream=openssl"
BUILDER = "https://ci.example.com/builders/firmware@v3"
REPOSITORY = "https://git.example.com/acme/gw1"


def dumps(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def component(name: str, version: str, purl: str = "", **more: Any) -> dict[str, Any]:
    found = {"type": "library", "bom-ref": f"{name}@{version}", "name": name, "version": version}
    return found | ({"purl": purl} if purl else {}) | more


def cyclonedx(*components: Mapping[str, Any], version: str = "1.6") -> dict[str, Any]:
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{version}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": version,
        "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
        "version": 1,
        "metadata": {
            "timestamp": "2026-11-01T08:00:00Z",
            "tools": {"components": [{"type": "application", "name": "syft", "version": "1.20.0"}]},
            "component": {"type": "firmware", "name": "gw1", "version": "2.4.1"},
        },
        "components": list(components),
    }


def spdx(*packages: Mapping[str, Any], version: str = "SPDX-2.3") -> dict[str, Any]:
    return {
        "spdxVersion": version,
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "gw1-image",
        "documentNamespace": "https://acme.example/spdx/gw1-2.4.1",
        "creationInfo": {"created": "2026-11-01T08:00:00Z", "creators": ["Tool: yocto"]},
        "packages": list(packages),
    }


def package(name: str, version: str, purl: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "SPDXID": f"SPDXRef-Package-{name}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
    }
    if purl:
        reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl"}
        found["externalRefs"] = [reference | {"referenceLocator": purl}]
    return found


def statement(
    *sha256: str,
    builder: str = BUILDER,
    repository: str = REPOSITORY,
    ref: str = "refs/tags/v2.4.1",
) -> dict[str, Any]:
    """Return SLSA v1 provenance."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "rootfs.ext4", "digest": {"sha256": one}} for one in sha256],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://ci.example.com/firmware/v1",
                "externalParameters": {"workflow": {"repository": repository, "ref": ref}},
                "resolvedDependencies": [{"uri": "git+https://git.example.com/acme/base@main"}],
            },
            "runDetails": {"builder": {"id": builder}, "metadata": {"invocationId": "42"}},
        },
    }


def statement_02(*sha256: str, uri: str = f"git+{REPOSITORY}@refs/tags/v2.4.1") -> dict[str, Any]:
    """Return SLSA v0.2 provenance."""
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "subject": [{"name": "rootfs.ext4", "digest": {"sha256": one}} for one in sha256],
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "predicate": {
            "builder": {"id": BUILDER},
            "buildType": "https://ci.example.com/firmware/v1",
            "invocation": {"configSource": {"uri": uri, "digest": {"sha1": "a" * 40}}},
            "materials": [{"uri": "git+https://git.example.com/acme/base@main"}],
        },
    }


def dsse(body: Mapping[str, Any], signer: Signer, *, keyid: str = "") -> dict[str, Any]:
    """Wrap and sign as common signers do: an empty key id, and P-256 or Ed25519."""
    payload = json.dumps(body).encode()
    kind = PAYLOAD_TYPE.encode()
    signature = signer.sign(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def osv(
    name: str = "CVE-2025-9230",
    *,
    ecosystem: str = "Debian:12",
    package: str = "openssl",
    fixed: str = "3.0.17-1~deb12u3",
    **more: Any,
) -> dict[str, Any]:
    return {
        "schema_version": "1.7.0",
        "id": name,
        "modified": "2026-10-02T10:00:00.123456789Z",
        "published": "2026-10-01T10:00:00Z",
        "summary": "Out-of-bounds read and write in RFC 3211 KEK unwrap",
        "aliases": ["GHSA-xxxx-yyyy-zzzz"],
        "references": [{"type": "ADVISORY", "url": "https://security.example/CVE-2025-9230"}],
        "database_specific": {"severity": "HIGH"},
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": package},
                "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}
                ],
            }
        ],
    } | more


def openvex(
    *,
    vulnerability: str = "CVE-2025-9230",
    product: Any = "pkg:generic/gw1@2.4.1",
    part: str = "pkg:deb/debian/openssl",
    status: str = "not_affected",
    at: str = "2026-11-02T00:00:00Z",
    **more: Any,
) -> dict[str, Any]:
    one: dict[str, Any] = {"@id": product}
    if part:
        one["subcomponents"] = [{"@id": part}]
    said: dict[str, Any] = {"vulnerability": {"name": vulnerability}, "products": [one]}
    said["status"] = status
    if status == "not_affected":
        said["justification"] = "vulnerable_code_not_in_execute_path"
    return {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://acme.example/vex/gw1-2.4.1",
        "author": "Acme product security",
        "timestamp": at,
        "version": 1,
        "statements": [said | more],
    }


def csaf(
    *,
    name: str = "ACME-2026-007",
    cve: str = "CVE-2025-9230",
    product_status: Mapping[str, list[str]] | None = None,
    **vulnerability: Any,
) -> dict[str, Any]:
    """Return an advisory over openssl below 3.0.17, which 3.0.17 fixes, and the same openssl inside gw1 2.4.1 (`GW1:OLD`)."""
    key = "pkg:deb/debian/openssl"
    versions = {
        "category": "product_name",
        "name": "openssl",
        "branches": [
            {
                "category": "product_version_range",
                "name": "vers:deb/<3.0.17-1~deb12u3",
                "product": {
                    "product_id": "OLD",
                    "name": "openssl before 3.0.17-1~deb12u3",
                    "product_identification_helper": {"purl": key},
                },
            },
            {
                "category": "product_version",
                "name": "3.0.17-1~deb12u3",
                "product": {
                    "product_id": "NEW",
                    "name": "openssl 3.0.17",
                    "product_identification_helper": {"purl": f"{key}@3.0.17-1~deb12u3"},
                },
            },
        ],
    }
    gateway = {
        "category": "product_version",
        "name": "2.4.1",
        "product": {
            "product_id": "GW1",
            "name": "Gateway 2.4.1",
            "product_identification_helper": {"purl": "pkg:generic/gw1@2.4.1"},
        },
    }
    return {
        "document": {
            "category": "csaf_security_advisory",
            "csaf_version": "2.0",
            "title": "openssl in gateways",
            "publisher": {"category": "vendor", "name": "Acme", "namespace": "https://acme.example"},
            "aggregate_severity": {"text": "Important"},
            "references": [{"url": "https://acme.example/ACME-2026-007", "summary": "self"}],
            "tracking": {
                "id": name,
                "status": "final",
                "version": "1",
                "initial_release_date": "2026-10-05T00:00:00Z",
                "current_release_date": "2026-11-05T00:00:00Z",
                "revision_history": [],
            },
        },
        "product_tree": {
            "branches": [
                {"category": "vendor", "name": "Acme", "branches": [versions, gateway]}
            ],
            "relationships": [
                {
                    "category": "default_component_of",
                    "product_reference": "OLD",
                    "relates_to_product_reference": "GW1",
                    "full_product_name": {"product_id": "GW1:OLD", "name": "openssl in gw1"},
                }
            ],
        },
        "vulnerabilities": [
            {
                "cve": cve,
                "title": "Out-of-bounds read",
                "product_status": product_status or {"known_affected": ["OLD"], "fixed": ["NEW"]},
                "scores": [{"products": ["OLD"], "cvss_v3": {"baseSeverity": "HIGH"}}],
            }
            | vulnerability
        ],
    }  # fmt: skip
