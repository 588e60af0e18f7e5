"""`tidegate-agent`: the resident loop, and the verbs that ask it.

Exit codes: 0 done; 1 could not be done; 2 wrong use or configuration; 7 waits for a person's approval; with `reboot = "exit:N"`, N when the board is to
restart.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from tidegate.agent.settings import Config

PENDING = 7
#: How long `apply-now --bundle` waits for a device that restarts meanwhile, in seconds.
RESTART_S = 120.0


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    return _resident(words) if "run" in words else _command_line(words, None)


def _resident(words: list[str]) -> int:
    """Start the loop. What reads options and configuration runs in a child and ends with it: the resident process never loads that.

    msgspec takes `typing_extensions` where it is installed; Python 3.11 has all of it that is needed here, and it costs 1.2 MiB.
    """
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            code = _command_line(words, writing)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    # What the loop needs is loaded while the child reads.
    from tidegate.agent import start  # noqa: F401

    with os.fdopen(reading, "rb") as pipe:
        body = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0 or not body:
        return code
    return _run_loop(body)


def _run_loop(body: bytes) -> int:
    import msgspec

    from tidegate.agent.start import Start, run
    from tidegate.core.errors import TidegateError

    try:
        return run(msgspec.json.decode(body, type=Start))
    except TidegateError as error:
        return _complain(error)


def _command_line(words: list[str], writing: int | None) -> int:
    """Read the options and do one command; for `run`, write what the loop needs to `writing`."""
    from tidegate.core.errors import TidegateError

    try:
        return _run(_parser().parse_args(words), writing)
    except TidegateError as error:
        return _complain(error)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 2
    except KeyboardInterrupt:
        return 130


def _complain(error: Any) -> int:
    from tidegate.core.errors import ConfigError

    for line in error.detail.splitlines() or [error.code]:
        print(f"error[{error.code}]: {line}", file=sys.stderr)
    if error.hint:
        print(f"  do    {error.hint}", file=sys.stderr)
    return 2 if isinstance(error, ConfigError) else 1


def _parser() -> "argparse.ArgumentParser":
    import argparse

    from tidegate import __version__
    from tidegate.core.nearest import did_you_mean

    class Parser(argparse.ArgumentParser):
        def _check_value(self, action: argparse.Action, value: Any) -> None:
            if action.choices is not None and value not in action.choices:
                near = did_you_mean(str(value), list(action.choices))
                raise argparse.ArgumentError(action, f"no such command or choice: {value!r}{near}")

    parser = Parser(
        prog="tidegate-agent",
        description="Keeps this device's firmware up to date, and takes back what does not work.",
    )
    parser.add_argument("--version", action="version", version=f"tidegate-agent {__version__}")
    parser.add_argument(
        "--config", help="read this file (and FILE.d/*.toml) instead of /etc/tidegate"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _resident_commands(commands)
    _person_commands(commands)
    return parser


def _command(commands: Any, name: str, words: str) -> "argparse.ArgumentParser":
    import argparse

    made: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words)
    # Also behind the command: that is where people put it.
    made.add_argument("--config", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return made


def _resident_commands(commands: Any) -> None:
    run = _command(commands, "run", "the resident loop; the service manager starts it")
    run.add_argument("--once", action="store_true", help="one poll and what follows at once")
    run.add_argument(
        "--inline", action="store_true", help="verify and sign in this process: more memory"
    )
    enrol = _command(commands, "enrol", "join a fleet")
    enrol.add_argument("--server", metavar="URL", help="instead of [server] url")
    claim = enrol.add_mutually_exclusive_group()
    claim.add_argument("--claim-stdin", action="store_true", help="read the claim token")
    claim.add_argument("--claim-file", help="file that holds the claim token")
    claim.add_argument("--no-claim", action="store_true", help="wait for a person's approval")
    _command(commands, "rekey", "make a new device key; the server takes it, or a person does")
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
    apply = _command(
        commands, "apply-now", "activate what is staged: skips the window, not the permit"
    )
    apply.add_argument(
        "--bundle", metavar="FILE", help="install a release from this bundle or mirror, by hand"
    )
    _command(commands, "confirm", "accept the running image by hand")
    revert = _command(commands, "revert", "go back to the other confirmed image")
    revert.add_argument("--reason", default="")


def _run(options: "argparse.Namespace", writing: int | None) -> int:
    if options.command == "explain":
        return _explain(options.code)
    from pathlib import Path

    from tidegate.agent import config

    path = None if options.config is None else Path(options.config)
    if options.command == "config" and options.what == "show":
        print("\n".join(config.show(path, config.environment(), origin=options.origin)))
        return 0
    if getattr(options, "server", None):
        # In the environment, so that the worker process sees it as well.
        os.environ["TIDEGATE_AGENT_SERVER_URL"] = options.server
    found = config.read(path, config.environment())
    if options.command == "config":
        from tidegate.agent import installers

        _require_backend(found)
        installers.check(found.settings)
        print("The configuration is in order.")
        return 0
    if options.command == "run" and writing is not None:
        return _hand_over(options, found, writing)
    if options.command == "enrol":
        return _enrol(options, found)
    if options.command == "rekey":
        return _rekey(options, found)
    if options.command == "doctor":
        from tidegate.agent import doctor

        return doctor.run(found, as_json=options.json)
    return _ask(options, found)


def _require_backend(found: "Config") -> None:
    from tidegate.agent import bootloaders
    from tidegate.core.errors import ConfigError
    from tidegate.core.nearest import did_you_mean

    names = bootloaders.names()
    if found.bootloader not in names:
        near = did_you_mean(found.bootloader, names)
        raise ConfigError(
            "config.invalid", f"[bootloader] name = {found.bootloader!r} is not there{near}"
        )


def _hand_over(options: "argparse.Namespace", found: "Config", writing: int) -> int:
    import msgspec

    from tidegate.agent.start import Start

    start = Start(config=found, path=options.config, once=options.once, inline=options.inline)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(msgspec.json.encode(start))
    return 0


def _enrol(options: "argparse.Namespace", found: "Config") -> int:
    from tidegate.agent.enrolment import FINGERPRINT_NAME
    from tidegate.agent.jobs import Enrol, Enrolled

    claim = found.settings.claim
    if options.claim_stdin:
        claim = sys.stdin.readline().strip()
    elif options.claim_file is not None:
        claim = _claim_in(options.claim_file)
    elif options.no_claim:
        claim = None
    reply = _worker_says(options, found, Enrol(claim=claim))
    if not isinstance(reply, Enrolled):
        # also who is refused has a key: on a swapped board it is the one to approve
        _show_fingerprint(found, FINGERPRINT_NAME)
        return 1
    _show_fingerprint(found, FINGERPRINT_NAME)
    if reply.state == "accepted":
        print(f"Joined: {found.settings.device_id}.")
        return 0
    print(f"The server says: {reply.state}. A person accepts the device there.")
    return PENDING if reply.state == "pending" else 1


def _rekey(options: "argparse.Namespace", found: "Config") -> int:
    from tidegate.agent.enrolment import FINGERPRINT_NAME, NEXT_FINGERPRINT_NAME
    from tidegate.agent.jobs import Rekey, Rekeyed

    reply = _worker_says(options, found, Rekey())
    if isinstance(reply, Rekeyed) and reply.state == "done":
        _show_fingerprint(found, FINGERPRINT_NAME)
        print("The server has taken the new key; the old one is dead.")
        return 0
    _show_fingerprint(found, NEXT_FINGERPRINT_NAME)
    if not isinstance(reply, Rekeyed):
        return 1
    print(
        "A person approves the new key there: "
        f"tidegate device swap {found.settings.device_id} --fingerprint '...'"
    )
    return PENDING


def _worker_says(options: "argparse.Namespace", found: "Config", job: Any) -> Any:
    """Have a worker do one job and return its answer; what failed is printed."""
    from tidegate.agent import assemble
    from tidegate.agent.events import Failed
    from tidegate.agent.jobs import Quiet, Task
    from tidegate.agent.state import State
    from tidegate.agent.subprocess_worker import SubprocessWorker

    worker = SubprocessWorker(options.config, assemble.ports(found).clock)
    try:
        task = Task(job=job, state=State())
        replies = [one for one in worker.perform(task) if not isinstance(one, Quiet)]
    finally:
        worker.rest()
    reply = replies[-1] if replies else None
    if isinstance(reply, Failed):
        _say_error(reply.reason, reply.detail)
    return reply


def _show_fingerprint(found: "Config", name: str) -> None:
    from tidegate.agent.files import StateDirectory
    from tidegate.core.words import key_words

    digest = (StateDirectory(found.state_dir).read(name) or b"").decode("ascii", "replace")
    if len(digest) == 64:
        print(f"Fingerprint  {key_words(digest)}\n             {digest}")


def _claim_in(path: str) -> str:
    from tidegate.core.errors import ConfigError

    try:
        with open(path) as file:
            return file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "config.unreadable",
            f"{path}: {getattr(error, 'strerror', None) or error}",
            hint="name the file that `tidegate claim create --out` wrote",
        ) from error


def _say_error(code: str, detail: str) -> None:
    from tidegate.core.errors import HINTS

    print(f"error[{code}]: {detail}", file=sys.stderr)
    if code in HINTS:
        print(f"  do    {HINTS[code]}", file=sys.stderr)


def _ask(options: "argparse.Namespace", found: "Config") -> int:
    from tidegate.agent.local import Request, ask
    from tidegate.agent.status import lines

    bundle = getattr(options, "bundle", None)
    request = Request(
        verb=options.command,
        reason=getattr(options, "reason", ""),
        until_at=_until(getattr(options, "duration", None)),
        bundle=os.path.abspath(bundle) if bundle else "",  # noqa: PTH100
    )
    before = ask(found.socket_path, Request(verb="status")) if bundle else None
    answer = ask(found.socket_path, request)
    if not answer["ok"]:
        _say_error(answer["code"], answer["detail"])
        return 1
    if before is not None:
        return _follow(found, before["status"]["running"]["sha256"])
    if options.command != "status":
        print(answer["said"])
    elif options.json:
        import msgspec

        print(msgspec.json.encode(answer["status"]).decode())
    else:
        print("\n".join(lines(answer["status"])))
    return 0


def _follow(found: "Config", ran: str | None) -> int:
    """Wait until the running agent has looked at a bundle, and say what it made of it. A device that restarts meanwhile is waited for.

    Args:
        found: whose agent.
        ran: digest of what ran before, to tell by whether a restarted device took it.
    """
    import time

    from tidegate.agent.local import Request, ask
    from tidegate.agent.status import lines
    from tidegate.core.errors import TransferError

    silent_since: float | None = None
    while True:
        try:
            word = ask(found.socket_path, Request(verb="bundle"))["bundle"]
        except TransferError:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > RESTART_S:
                raise
            time.sleep(0.2)
            continue
        if word["state"] == "refused":
            _say_error(word["code"], word["detail"])
            return 1
        if word["state"] == "accepted":
            print(f"{word['release']} is signed, newer, and made for this device.")
            print("It is installed and tried now; `tidegate-agent status` says how far it is.")
            return 0
        if word["state"] == "none":
            # Its word on the bundle was kept in memory: after a restart, what it does tells.
            status = ask(found.socket_path, Request(verb="status"))["status"]
            print("The device restarted meanwhile. Now:\n\n" + "\n".join(lines(status)))
            taken = status["update"] is not None or status["running"]["sha256"] != ran
            return 0 if taken else 1
        time.sleep(0.2)


def _until(duration: str | None) -> int:
    if duration is None:
        return 0
    import time

    from tidegate.core.amounts import parse_duration

    return int(time.time()) + parse_duration(duration, "--for")


def _explain(code: str) -> int:
    from tidegate.core.errors import HINTS
    from tidegate.core.reasons import REASONS

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
