"""`tidegate-agent`: the resident loop, and the verbs that ask it.

Exit codes: 0 done; 1 could not be done; 2 wrong use or configuration; 7 waits for a person's approval; with `reboot = "exit:N"`, N when the board is to
restart.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tidegate import __version__
from tidegate.core.errors import HINTS, ConfigError, TidegateError
from tidegate.core.reasons import REASONS

PENDING = 7


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except TidegateError as error:
        for line in error.detail.splitlines() or [error.code]:
            print(f"error[{error.code}]: {line}", file=sys.stderr)
        if error.hint:
            print(f"  do    {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate-agent",
        description="Keeps this device's firmware up to date, and takes back what does not work.",
    )
    parser.add_argument("--version", action="version", version=f"tidegate-agent {__version__}")
    parser.add_argument(
        "--config", type=Path, help="read this file (and FILE.d/*.toml) instead of /etc/tidegate"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _resident_commands(commands)
    _person_commands(commands)
    return parser


def _command(commands: Any, name: str, words: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words)
    # Also behind the command: that is where people put it.
    made.add_argument("--config", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return made


def _resident_commands(commands: Any) -> None:
    run = _command(commands, "run", "the resident loop; the service manager starts it")
    run.add_argument("--once", action="store_true", help="one poll and what follows at once")
    run.add_argument(
        "--inline", action="store_true", help="verify and sign in this process: more memory"
    )
    enrol = _command(commands, "enrol", "join a fleet")
    claim = enrol.add_mutually_exclusive_group()
    claim.add_argument("--claim-stdin", action="store_true", help="read the claim token")
    claim.add_argument("--claim-file", type=Path, help="file that holds the claim token")
    claim.add_argument("--no-claim", action="store_true", help="wait for a person's approval")
    doctor = _command(commands, "doctor", "is this board ready?")
    doctor.add_argument("--json", action="store_true")
    config = _command(commands, "config", "check or show the configuration")
    config.add_argument("what", choices=("check", "show"))
    config.add_argument("--origin", action="store_true", help="where each value comes from")
    explain = _command(commands, "explain", "what a code means, and what to do about it")
    explain.add_argument("code")


def _person_commands(commands: Any) -> None:
    status = _command(commands, "status", "what runs, what is under way, what it waits for")
    status.add_argument("--json", action="store_true")
    hold = _command(commands, "hold", "activate nothing until released")
    hold.add_argument("reason", nargs="?", default="")
    hold.add_argument("--for", dest="duration", help='how long, "3d"; at most defer_max')
    _command(commands, "release", "end the hold")
    _command(commands, "check", "poll now")
    _command(commands, "apply-now", "activate what is staged: skips the window, not the permit")
    _command(commands, "confirm", "accept the running image by hand")
    revert = _command(commands, "revert", "go back to the other confirmed image")
    revert.add_argument("--reason", default="")


def _run(options: argparse.Namespace) -> int:
    if options.command == "explain":
        return _explain(options.code)
    from tidegate.agent import config

    found = config.read(options.config, config.environment())
    if options.command == "config":
        if options.what == "show":
            print("\n".join(config.show(found, origin=options.origin)))
        else:
            print("The configuration is in order.")
        return 0
    if options.command == "run":
        return _resident(options, found)
    if options.command == "enrol":
        return _enrol(options, found)
    if options.command == "doctor":
        from tidegate.agent import doctor

        return doctor.run(found, as_json=options.json)
    return _ask(options, found)


def _resident(options: argparse.Namespace, found: Any) -> int:
    from tidegate.agent import assemble
    from tidegate.agent.loop import Loop
    from tidegate.agent.runner import Runner
    from tidegate.agent.subprocess_worker import SubprocessWorker

    ports = assemble.ports(found)
    perform = None
    if not options.inline:
        perform = SubprocessWorker(options.config, ports.clock).perform
    return Loop(found, Runner(ports, found.settings, perform)).run(once=options.once)


def _enrol(options: argparse.Namespace, found: Any) -> int:
    from tidegate.agent import assemble
    from tidegate.agent.jobs import Enrol, Enrolled, Quiet, Task
    from tidegate.agent.state import Failed, State
    from tidegate.agent.subprocess_worker import SubprocessWorker

    claim = found.settings.claim
    if options.claim_stdin:
        claim = sys.stdin.readline().strip()
    elif options.claim_file is not None:
        claim = options.claim_file.read_text().strip()
    elif options.no_claim:
        claim = None
    worker = SubprocessWorker(options.config, assemble.ports(found).clock)
    task = Task(job=Enrol(claim=claim), state=State())
    for reply in worker.perform(task):
        if isinstance(reply, Enrolled):
            print(f"Fingerprint  {reply.fingerprint}")
            if reply.state == "accepted":
                print(f"Joined: {found.settings.device_id}.")
                return 0
            print(f"The server says: {reply.state}. A person accepts the device there.")
            return PENDING if reply.state == "pending" else 1
        if isinstance(reply, Failed):
            print(f"error[{reply.reason}]: {reply.detail}", file=sys.stderr)
            return 1
        if not isinstance(reply, Quiet):
            break
    return 1


def _ask(options: argparse.Namespace, found: Any) -> int:
    from tidegate.agent.local import Request, ask
    from tidegate.agent.status import lines

    request = Request(
        verb=options.command,
        reason=getattr(options, "reason", ""),
        until_at=_until(getattr(options, "duration", None)),
    )
    answer = ask(found.socket_path, request)
    if not answer["ok"]:
        print(f"error[{answer['code']}]: {answer['detail']}", file=sys.stderr)
        return 1
    if options.command != "status":
        print(answer["said"])
    elif options.json:
        print(msgspec.json.encode(answer["status"]).decode())
    else:
        print("\n".join(lines(answer["status"])))
    return 0


def _until(duration: str | None) -> int:
    if duration is None:
        return 0
    from tidegate.core.amounts import parse_duration

    return int(time.time()) + parse_duration(duration, "--for")


def _explain(code: str) -> int:
    if code not in REASONS and code not in HINTS:
        from tidegate.core.nearest import did_you_mean

        near = did_you_mean(code, {**REASONS, **HINTS})
        print(f"no code {code!r}{near}", file=sys.stderr)
        return 2
    print(f"{code}: {REASONS.get(code, 'an error')}")
    if code in HINTS:
        print(f"  do    {HINTS[code]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
