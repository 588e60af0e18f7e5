import hashlib
import re
from pathlib import Path

import tidegate.server.web
from tidegate.server.web.assets import Assets

STATIC = Path(tidegate.server.web.__file__).parent / "static"


def test_every_vendored_file_is_the_one_that_was_published() -> None:
    vendor = STATIC / "vendor"
    lines = (vendor / "CHECKSUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split() for line in lines)}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.iterdir()
        if path.name not in {"CHECKSUMS", "README.md"}
    }
    assert listed == found


def test_our_own_style_and_script_stay_small() -> None:
    assert (STATIC / "tidegate.css").stat().st_size < 40_000
    assert (STATIC / "tidegate.js").stat().st_size < 12_000


def test_an_address_changes_with_the_content_and_nothing_else_is_served() -> None:
    assets = Assets()
    asset = assets.get("tidegate.css")
    assert asset is not None
    assert assets.url("tidegate.css") == f"/static/tidegate.css?v={asset.digest[:12]}"
    assert assets.get("../router.py") is None
    assert assets.get("vendor/README.md") is None
    assert {"tidegate.css", "tidegate.js", "vendor/htmx.min.js"} <= set(assets.paths())


def _tokens(theme: int) -> dict[str, str]:
    text = (STATIC / "tidegate.css").read_text()
    pairs = re.findall(r"--([a-z0-9-]+):\s*light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", text)
    return {name: (light, dark)[theme] for name, light, dark in pairs}


def _luminance(color: str) -> float:
    parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_reads_on_every_ground_in_both_themes() -> None:
    grounds = ("canvas", "surface", "raised")
    texts = ("text", "text-2", "text-3", "ok", "warn", "bad", "lost", "iso", "accent")
    weak = [
        (theme, text, ground)
        for theme in (0, 1)
        for text in texts
        for ground in grounds
        if _contrast(_tokens(theme)[text], _tokens(theme)[ground]) < 4.5
    ]
    assert weak == []


def test_white_reads_on_every_filled_button_in_both_themes() -> None:
    fills = ("accent-fill", "halt", "halt-hover")
    weak = [(t, f) for t in (0, 1) for f in fills if _contrast(_tokens(t)[f], "#ffffff") < 4.5]
    assert weak == []
