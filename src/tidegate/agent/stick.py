"""The resident side of `apply-now --bundle`: hands the path to the worker and keeps the answer for the person who waits for it. Light."""

from typing import TYPE_CHECKING, Literal

import msgspec

from tidegate.agent.events import Assigned, Failed, Refused
from tidegate.agent.jobs import Job, OpenBundle, Quiet, Reply
from tidegate.agent.moves import bundle_bar
from tidegate.core.reasons import is_reason

if TYPE_CHECKING:
    from tidegate.agent.runner import Runner


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the last bundle that was named."""

    state: Literal["none", "checking", "accepted", "refused"] = "none"
    path: str = ""
    code: str = ""
    detail: str = ""
    release: str = ""


class Stick:
    """What a person brought to one device.

    Attributes:
        word: what is known of it.
    """

    def __init__(self) -> None:
        self.word = Word()

    def asked(self, path: str) -> OpenBundle:
        """Return the job for a path."""
        self.word = Word(state="checking", path=path)
        return OpenBundle(path=path)

    def answered(self, runner: "Runner", job: Job, reply: Reply) -> bool:
        """Take the worker's answer to our job: begin, or say why not. A refusal with a reason is a security event as well. Returns False for another job's."""
        if isinstance(job, OpenBundle):
            self._take(runner, job, reply)
            return True
        return False

    def _take(self, runner: "Runner", job: OpenBundle, reply: Reply) -> None:
        match reply:
            case Assigned():
                barred = bundle_bar(runner.state, reply.update)
                runner.feed(reply)
                if barred is None:
                    release = reply.update.release.name
                    self.word = Word(state="accepted", path=job.path, release=release)
                else:
                    self._refuse(job, *barred)
            case Refused():
                self._refuse(job, reply.reason, reply.detail)
                if is_reason(reply.reason):
                    runner.feed(reply)
            case Failed():
                self._refuse(job, reply.reason, reply.detail)
            case Quiet():
                return
            case _:
                self._refuse(job, "agent.internal", "not an answer")

    def _refuse(self, job: OpenBundle, code: str, detail: str) -> None:
        self.word = Word(state="refused", path=job.path, code=code, detail=detail[:300])
