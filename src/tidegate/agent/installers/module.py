"""Installer `module`: runs an existing update module (Mender's protocol, version 3) unchanged, for a component beside the slots.

The payload is a list of files; `module` of the release's component names the update module, which must lie in `directory` on the device. It is fetched into
the spool and held against its signed digest before the module sees any of it. Then, in this order: `Download` (it may take the files as streams; else they
are stored for it) and `SupportsRollback` before leave is asked for; with leave `ArtifactInstall` and `NeedsArtifactReboot`; after a restart
`ArtifactVerifyReboot`; when everything is healthy `ArtifactCommit`; and `Cleanup` always. On the way back `ArtifactRollback`, after a restart
`ArtifactVerifyRollbackReboot`, then `ArtifactFailure`. A state that was interrupted by a loss of power has failed, as the protocol says; `ArtifactRollback`
is called again.

A module that cannot roll back is refused before anything is touched, unless the release's component says `rollback = "none"`: then a failure leaves the
component as the module left it, and the update has failed.

`[installer.module]`: `directory` (default `/usr/share/mender/modules/v3`), `timeout_s` of one call (default 14400). Modules run as the agent does, with its
rights.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from tidegate.agent.events import Act, Download, ReadBack
from tidegate.agent.install import spool
from tidegate.agent.install.module_tree import ModuleTree, Record
from tidegate.agent.installers import Done, options
from tidegate.agent.jobs import Quiet, Reply
from tidegate.agent.places import in_slot
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.agent.state import Update
from tidegate.core.content import module_of
from tidegate.core.errors import DeviceError, TidegateError
from tidegate.core.release import Part

_set = msgspec.structs.replace


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[installer.module]`."""

    directory: str = "/usr/share/mender/modules/v3"
    timeout_s: int = 14_400


def ready(settings: Settings) -> None:
    """Ask whether there are update modules here.

    Raises:
        DeviceError: `install.installer`.
    """
    folder = options(settings, "module", Options).directory
    try:
        found = os.listdir(folder)  # noqa: PTH208 - as elsewhere here
    except OSError as error:
        raise DeviceError(
            "install.installer",
            f"{folder}: {error.strerror}",
            hint="put update modules there, or take `module` out of [installer] allow",
        ) from error
    if not found:
        raise DeviceError("install.installer", f"{folder} holds no update module")


def download(world: World, settings: Settings, job: Download, token: str | None) -> Iterator[Reply]:
    """Fetch the files and hand them to the module. Nothing is changed by it yet.

    Raises:
        TransferError, PublisherError, DeviceError: see the package.
    """
    if in_slot(job.update, job.part):
        raise DeviceError("install.installer", "an update module writes no slot")
    tree = _tree(world, settings, job.piece)
    before = tree.read()
    if before is not None and before.sha256 != job.piece.install.sha256:
        _clean(tree, before)

    def install(path: str) -> Iterator[Quiet]:
        known = tree.read()
        if known is not None and known.staged:
            return
        if known is not None or tree.path.exists():
            _clean(tree, known)
        record = tree.keep(Record(sha256=job.piece.install.sha256, begun="Download"))
        tree.make(_facts(settings, job))
        yield from tree.download(path)
        backs = tree.ask("SupportsRollback", ("No", "Yes")) == "Yes"
        if not backs and job.piece.settings.get("rollback") != "none":
            raise DeviceError(
                "install.installer",
                f"module {module_of(job.piece.settings)} cannot roll back",
                hint='a release that accepts this says rollback = "none" in its component',
            )
        tree.keep(_set(record, begun="", staged=True, backs=backs))

    yield from spool.through(world, settings, job, token, install)


def read_back(world: World, settings: Settings, job: ReadBack) -> None:
    """Make sure that the module still has what it was given.

    Raises:
        DeviceError: `install.readback`.
    """
    record = _tree(world, settings, job.piece).read()
    if record is None or record.sha256 != job.piece.install.sha256 or not record.staged:
        raise DeviceError("install.readback", f"{job.piece.component}: nothing is staged")


def change(world: World, settings: Settings, update: Update, part: int, act: Act) -> Done:
    """Call the module with the states that belong to an act; what ended well before is not called again.

    Raises:
        DeviceError: `install.installer`: the module failed, or was interrupted.
    """
    piece = update.release.pieces[part]
    tree = _tree(world, settings, piece)
    record = tree.read()
    if record is None or record.sha256 != piece.install.sha256:
        if act == "activate":
            raise DeviceError("install.readback", f"{piece.component}: nothing is staged")
        return Done()
    return _ACTS[act](tree, record)


# --- acts ---------------------------------------------------------------------------------------------------------------


def _activate(tree: ModuleTree, record: Record) -> Done:
    if not record.installed:
        _refuse_interrupted(record, "ArtifactInstall")
        record = _state(tree, _set(record, touched=True), "ArtifactInstall")
        restart = tree.ask("NeedsArtifactReboot", ("No", "Yes", "Automatic"))
        record = tree.keep(_set(record, begun="", installed=True, restart=restart))
    if record.restart == "Yes" and not record.verified:
        # The module restarts what it has to itself, be it this device: then this goes on after that.
        if record.begun != "ArtifactReboot":
            record = _state(tree, record, "ArtifactReboot")
        record = _came_up(tree, record)
    return Done(restart=record.restart == "Automatic")


def _verify(tree: ModuleTree, record: Record) -> Done:
    if record.restart == "Automatic" and not record.verified:
        _came_up(tree, record)
    return Done()


def _came_up(tree: ModuleTree, record: Record) -> Record:
    _refuse_interrupted(record, "ArtifactVerifyReboot")
    return tree.keep(_set(_state(tree, record, "ArtifactVerifyReboot"), begun="", verified=True))


def _commit(tree: ModuleTree, record: Record) -> Done:
    if not record.committed:
        _refuse_interrupted(record, "ArtifactCommit")
        tree.keep(_set(_state(tree, record, "ArtifactCommit"), begun="", committed=True))
    return Done(final=True)


def _roll_back(tree: ModuleTree, record: Record) -> Done:
    if not record.touched:
        return Done()
    if record.committed or not record.backs:
        why = "was committed" if record.committed else "cannot roll back"
        raise DeviceError("install.installer", f"{tree.name} {why}")
    if not record.taken_back:
        record = _state(tree, record, "ArtifactRollback")
        restart = record.restart or tree.ask("NeedsArtifactReboot", ("No", "Yes", "Automatic"))
        record = tree.keep(_set(record, begun="", taken_back=True, restart=restart))
        if restart == "Yes":
            tree.call("ArtifactRollbackReboot")
            tree.call("ArtifactVerifyRollbackReboot")
    return Done(restart=record.restart == "Automatic")


def _verify_back(tree: ModuleTree, record: Record) -> Done:
    if record.taken_back and record.restart == "Automatic":
        tree.call("ArtifactVerifyRollbackReboot")
    return Done()


def _discard(tree: ModuleTree, record: Record) -> Done:
    _clean(tree, record)
    return Done()


_ACTS: Final[dict[Act, Callable[[ModuleTree, Record], Done]]] = {
    "activate": _activate,
    "verify": _verify,
    "commit": _commit,
    "roll_back": _roll_back,
    "verify_back": _verify_back,
    "discard": _discard,
}


def _state(tree: ModuleTree, record: Record, state: str) -> Record:
    """Call the module with a state that must not be called twice; the record says that it was begun."""
    record = tree.keep(_set(record, begun=state))
    tree.call(state)
    return record


def _refuse_interrupted(record: Record, state: str) -> None:
    if record.begun == state:
        raise DeviceError("install.installer", f"{state} was interrupted, which counts as failed")


def _clean(tree: ModuleTree, record: Record | None) -> None:
    """The last calls of a module, whatever it makes of them, and away with its tree."""
    failed = record is not None and record.touched and not record.committed
    for state in (*(("ArtifactFailure",) if failed else ()), "Cleanup"):
        try:
            if tree.path.exists():
                tree.call(state)
        except TidegateError:
            # Nothing follows from it: the module had its turn.
            continue
    tree.remove()


# --- the tree -----------------------------------------------------------------------------------------------------------


def _tree(world: World, settings: Settings, piece: Part) -> ModuleTree:
    chosen = options(settings, "module", Options)
    name = module_of(piece.settings)
    path = f"{chosen.directory}/{name}"
    if not os.access(path, os.X_OK) or os.path.isdir(path):  # noqa: PTH112 - a text, as in the rest of this layer
        raise DeviceError(
            "install.installer",
            f"no update module {path}",
            hint="install it on the device, or set [installer.module] directory",
        )
    return ModuleTree(world.board.component(piece.component).path, path, chosen.timeout_s)


def _facts(settings: Settings, job: Download) -> dict[str, str]:
    """Return the files of the tree that say what this is about."""
    release, piece = job.update.release, job.piece
    kind = module_of(piece.settings)
    info = {
        "payloads": [{"type": kind}],
        "artifact_provides": {"artifact_name": release.name},
        "artifact_depends": {"device_type": [settings.hardware.model]},
    }
    return {
        "version": "3\n",
        "current_artifact_group": "",
        "current_artifact_name": f"{settings.product}-{job.update.from_counter}",
        "current_device_type": settings.hardware.model,
        "header/artifact_group": "",
        "header/artifact_name": release.name,
        "header/payload_type": kind,
        "header/header-info": _json(info),
        "header/type-info": _json({"type": kind}),
        "header/meta-data": str(piece.settings.get("meta_data", "")),
    }


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
