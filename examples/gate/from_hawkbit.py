"""Turn what hawkBit knows of a rollout into lines for `tidegate gate`: targets and action statuses in, lines out, in the order of time.

Input: a JSON object a line, as its management API gives them: a target (`controllerId`, `controllerAttributes`) or a status of its action
(`controllerId`, `type`, `reportedAt`); milliseconds. Needs nothing but Python.

    python examples/gate/from_hawkbit.py export.jsonl | tidegate gate

hawkBit knows no leave to activate: here a device is at risk as soon as it took its action. Whoever
asks the gate while the rollout runs starts the next group with as many devices as `permits` says.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What a status of an action means.
MEANING = {
    "retrieved": "permit",
    "running": "seen",
    "download": "seen",
    "downloaded": "seen",
    "finished": "confirmed",
    "error": "failed",
    "canceled": "refund",
}


def lines(export: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the gate's lines of an export."""
    targets = {one["controllerId"]: one for one in export if "type" not in one}
    statuses = sorted((one for one in export if "type" in one), key=lambda one: one["reportedAt"])
    begin = min(one["reportedAt"] for one in statuses) // 1000
    yield {"what": "begin", "at": begin, "attributes": ["variant", "region"]}
    for name, target in targets.items():
        told = target.get("controllerAttributes", {})
        values = {
            "variant": told.get("hw_revision", "other"),
            "region": told.get("region", "other"),
        }
        yield {"what": "device", "at": begin, "device": name, "values": values}
    asked = set()
    for one in statuses:
        what = MEANING.get(one["type"], "seen")
        if what == "permit" and one["controllerId"] in asked:
            what = "seen"
        asked.add(one["controllerId"])
        yield {"what": what, "at": one["reportedAt"] // 1000, "device": one["controllerId"]}


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text("utf-8")
    found = [json.loads(line) for line in text.splitlines() if line.strip()]
    for said in lines(found):
        sys.stdout.write(json.dumps(said) + "\n")
