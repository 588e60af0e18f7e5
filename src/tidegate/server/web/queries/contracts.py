"""A signed health contract, line by line. Pure."""

from collections.abc import Mapping

from tidegate.core.release import HealthContract
from tidegate.server.web import words
from tidegate.server.web.views import CheckRow


def rows(
    contract: HealthContract, results: Mapping[str, str] | None = None
) -> tuple[CheckRow, ...]:
    """Return the lines of a contract; `results` is the device's last word by check: `passed` or `failed`."""
    said = results or {}
    out = [
        CheckRow(one.name, _settings(one.settings) or one.kind, said.get(one.name, ""))
        for one in contract.checks
    ]
    asked = {one.name for one in contract.checks}
    out += [
        CheckRow(name, "asked for by the device", word)
        for name, word in sorted(said.items())
        if name not in asked and name != "errors"
    ]
    if contract.error_rate_per_hour is not None:
        limit = f"at most {words.number(contract.error_rate_per_hour)} an hour"
        out.append(CheckRow("Errors", limit, said.get("errors", "")))
    out.append(CheckRow("Warm-up", f"all of it for {words.duration(contract.warmup_s)}"))
    out.append(CheckRow("Or it goes back", f"after {words.duration(contract.timeout_s)}"))
    return tuple(out)


def _settings(settings: Mapping[str, str | int | list[str]]) -> str:
    parts = []
    for key, value in sorted(settings.items()):
        if isinstance(value, list):
            parts.append(", ".join(value))
        elif key.endswith("_s") and isinstance(value, int):
            parts.append(f"within {words.duration(value)}")
        else:
            parts.append(f"{key.replace('_', ' ')} {value}")
    return "; ".join(parts)
