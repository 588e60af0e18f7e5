"""Payloads of another tenant by the nginx in front, with the guide's own locations: its own devices get them, and nobody reaches past the server."""

import hashlib
import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.e2e.test_ways_of_bytes import listening, nginx
from tests.unit.server.house import OWN, House

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
BODY = b"a payload of acme" * 5_000


def _get(url: str, path: str, host: str, token: str = "") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    headers = {"Host": host, **({"Authorization": f"Bearer {token}"} if token else {})}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


@pytest.mark.parametrize("by_nginx", [True, False])
def test_a_tenants_payload_is_sent_by_nginx_where_it_was_told_its_folder(
    tmp_path: Path, by_nginx: bool
) -> None:
    more = {"artifacts": "accel", "accel_tenants": "/_tidegate_tenants/" if by_nginx else ""}
    house = House(tmp_path / "data", **more)
    try:
        acme = house.add("acme")
        sha256 = hashlib.sha256(BODY).hexdigest()
        acme.app.services.blobs.put(sha256, [BODY])
        token = acme.device("d1").token
        settings = acme.app.services.settings
        assert settings.artifacts == ("accel" if by_nginx else "stream")
        blobs = house.rig.folder / "blobs"
        with (
            listening(house.front) as server,
            nginx(tmp_path / "nginx", server, blobs) as url,
        ):
            path = f"/d/v1/blobs/{sha256}"
            status, headers, body = _get(url, path, acme.host, token)
            assert (status, body) == (200, BODY)
            assert headers["etag"].strip('"') == sha256
            straight = _get(server, path, acme.host, token)
            found = straight[1].get("x-accel-redirect", "")
            inside = f"/_tidegate_tenants/acme/{sha256[:2]}/{sha256}"
            assert found == (inside if by_nginx else "")
            assert _get(url, inside, acme.host, token)[0] == 404, "an internal location is nobody's"
            assert _get(url, path, OWN, token)[0] in {401, 403, 404}
    finally:
        house.close()
