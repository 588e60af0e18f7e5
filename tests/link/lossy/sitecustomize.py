"""Loaded by a worker process that has this folder in its path: notes what of a slot was written and not flushed yet, so that a power cut can take it.

Real are the process, its end by SIGKILL, its system calls and the slot's file; modelled is what the medium forgets, for a killed process alone loses nothing.
"""

import os

_SLOT = os.environ.get("TIDEGATE_TEST_SLOT", "")
_PWRITE, _FDATASYNC = os.pwrite, os.fdatasync


def _is_slot(handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(_SLOT))  # noqa: PTH116 - light
    except OSError:
        return False


if _SLOT:
    _log = os.open(f"{_SLOT}.unflushed", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _noted(handle: int, data: bytes, offset: int) -> int:
        if _is_slot(handle):
            before = os.pread(handle, len(data), offset)
            entry = offset.to_bytes(8, "big") + len(before).to_bytes(8, "big") + before
            os.write(_log, entry)
        return _PWRITE(handle, data, offset)

    def _flushed(handle: int) -> None:
        _FDATASYNC(handle)
        if _is_slot(handle):
            os.ftruncate(_log, 0)

    os.pwrite = _noted  # type: ignore[assignment]
    os.fdatasync = _flushed  # type: ignore[assignment]
