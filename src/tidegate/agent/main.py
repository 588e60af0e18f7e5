"""`tidegate-agent`: the resident loop, and the verbs that ask it.

Exit codes: 0 done; 1 could not be done; 2 wrong use or configuration; 7 waits for a person's approval; with `reboot = "exit:N"`, N when the board is to
restart; `inhibit` with a command: the command's own.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from tidegate.agent.settings import Config
    from tidegate.agent.verbs import Request

PENDING = 7
#: How long `apply-now --bundle` waits for a device that restarts meanwhile, in seconds.
RESTART_S = 120.0


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    return _resident(words) if _is_run(words) else _command_line(words, None)


def _is_run(words: list[str]) -> bool:
    """Say whether the command is `run`. The word may stand elsewhere, too: behind `inhibit`, say."""
    left = iter(words)
    for word in left:
        if word == "--config":
            next(left, None)
        elif not word.startswith("-"):
            return word == "run"
    return False


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
    try:
        code = _one_command(words, writing)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went away (`| head`); the interpreter flushes once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code


def _one_command(words: list[str], writing: int | None) -> int:
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
        epilog="Exit codes: 0 done, 1 could not be done (the agent says why), 2 wrong use or configuration, "
        "7 waits for a person's approval. inhibit with a command: the command's own.",
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
    from tidegate.agent.boot.verbs import VERBS

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
    boot = _command(commands, "boot", "the boot loader, in the words of RAUC's custom back end")
    boot.add_argument("verb", choices=tuple(VERBS))
    boot.add_argument("words", nargs="*", metavar="WORD", help="SLOT, SLOT good|bad, SLOT TRIES")
    explain = _command(commands, "explain", "what a code means, and what to do about it")
    explain.add_argument("code")


def _person_commands(commands: Any) -> None:
    def verb(name: str, words: str) -> "argparse.ArgumentParser":
        made = _command(commands, name, words)
        made.add_argument("--json", action="store_true", help="print the agent's answer as JSON")
        return made

    status = verb("status", "what runs, what is under way, what it waits for")
    status.add_argument(
        "--watch",
        action="store_true",
        help="show each change until interrupted; a line each with --json",
    )
    hold = verb("hold", "activate nothing until released")
    hold.add_argument("reason", nargs="?", default="")
    end = hold.add_mutually_exclusive_group()
    end.add_argument("--for", dest="duration", help='how long, "3d"; at most defer_max')
    end.add_argument(
        "--until",
        metavar="TIME",
        help='"2026-12-24 06:00", in the zone of [device], or with "+02:00"',
    )
    verb("release", "end the hold")
    defer = verb("defer", "put off the activation of the update that is under way")
    defer.add_argument(
        "duration", help='how long, "8h"; at most defer_max in all; "off": not any more'
    )
    check = verb("check", "poll now")
    check.add_argument(
        "--wait",
        action="store_true",
        help="until the server has answered; 1 when it could not be asked",
    )
    apply = verb("apply-now", "activate what is staged: skips window and deferral, not the permit")
    apply.add_argument(
        "--bundle", metavar="FILE", help="install a release from this bundle or mirror, by hand"
    )
    verb("confirm", "accept the running image by hand")
    revert = verb("revert", "go back to the other confirmed image")
    revert.add_argument("--reason", default="")
    _link_commands(verb)
    inhibit = verb("inhibit", "no activation while a command runs, or until this ends")
    inhibit.add_argument("--why", required=True, help="what is going on, for people")
    inhibit.add_argument("--who", default="", help="name of the application")
    inhibit.add_argument(
        "--for", dest="duration", help='leave it behind for so long ("2h") and return at once'
    )
    inhibit.add_argument("run", nargs="*", metavar="COMMAND", help="behind --: run this meanwhile")
    uninhibit = verb("uninhibit", "take away what inhibit --for left behind")
    uninhibit.add_argument("name")


def _link_commands(verb: "Callable[[str, str], argparse.ArgumentParser]") -> None:
    throttle = verb("throttle", "how fast downloads may be, also one under way")
    throttle.add_argument(
        "rate", help='"200KB/s" or "200k"; "off": no limit; "auto": as configured'
    )
    throttle.add_argument("--for", dest="duration", help='how long, "2h"')
    throttle.add_argument("--keep", action="store_true", help="also after a restart of the agent")
    metered = verb("metered", "whether the link costs money by the byte")
    metered.add_argument("word", choices=("yes", "no", "auto"))


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
        return _rekey(found)
    if options.command == "doctor":
        from tidegate.agent import doctor

        return doctor.run(found, as_json=options.json)
    if options.command == "boot":
        from tidegate.agent.boot import verbs as boot_verbs

        said = boot_verbs.answer(found, options.verb, options.words)
        sys.stdout.write(said and f"{said}\n")
        return 0
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
    # What it would refuse when the agent starts, it refuses now; whether the board's own files are there is for `doctor` to say.
    try:
        bootloaders.load(found.bootloader, found.boot_settings)
    except ConfigError as error:
        if error.code != "config.unreadable":
            raise


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
    reply = _worker_says(found, Enrol(claim=claim))
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


def _rekey(found: "Config") -> int:
    from tidegate.agent.enrolment import FINGERPRINT_NAME, NEXT_FINGERPRINT_NAME
    from tidegate.agent.jobs import Rekey, Rekeyed

    reply = _worker_says(found, Rekey())
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


def _worker_says(found: "Config", job: Any) -> Any:
    """Have a worker do one job and return its answer; what failed is printed."""
    from tidegate.agent import assemble
    from tidegate.agent.events import Failed
    from tidegate.agent.jobs import Quiet, Task
    from tidegate.agent.state import State
    from tidegate.agent.subprocess_worker import SubprocessWorker

    worker = SubprocessWorker(found, assemble.ports(found).clock)
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


def _say_json(found: Any) -> None:
    import msgspec

    print(msgspec.json.encode(found).decode())


def _say_error(code: str, detail: str) -> None:
    from tidegate.core.errors import HINTS

    print(f"error[{code}]: {detail}", file=sys.stderr)
    if code in HINTS:
        print(f"  do    {HINTS[code]}", file=sys.stderr)


def _ask(options: "argparse.Namespace", found: "Config") -> int:
    from tidegate.agent.local import Request, ask
    from tidegate.agent.status import lines

    if getattr(options, "watch", False):
        return _watch(options, found)
    bundle = getattr(options, "bundle", None)
    request = _request(options, bundle, found.settings.zone)
    if options.command == "inhibit" and not request.detached:
        from tidegate.agent.holding import Holder

        return Holder(found.socket_path, request).run(options.run)
    before = ask(found.socket_path, Request(verb="status")) if bundle else None
    answer = ask(found.socket_path, request)
    if not answer["ok"]:
        if options.json:
            _say_json(answer)
        else:
            _say_error(answer["code"], answer["detail"])
        return 1
    if getattr(options, "wait", False):
        return _wait_for_poll(options, found)
    if before is not None:
        return _follow(found, before["status"]["running"]["sha256"])
    if options.json:
        _say_json(answer.get("status", answer))
    elif options.command != "status":
        print(answer["said"])
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


def _watch(options: "argparse.Namespace", found: "Config") -> int:
    """Show how the agent fares, until interrupted."""
    from tidegate.agent import following
    from tidegate.agent.status import lines

    following.status(found.socket_path)
    if sys.stdout.isatty() and not options.json:
        following.screen(found.socket_path, lines)
    for one in following.changes(found.socket_path):
        if options.json:
            _say_json(one)
        else:
            print("\n".join(lines(one)) + "\n")
        sys.stdout.flush()
    return 0


def _wait_for_poll(options: "argparse.Namespace", found: "Config") -> int:
    """Say what came of the poll that was asked for."""
    from tidegate.agent import following
    from tidegate.agent.status import lines

    seen = following.polled(found.socket_path)
    code, _, detail = seen["problem"].partition(": ")
    if options.json:
        _say_json(seen)
    elif code:
        _say_error(code, detail or code)
    else:
        print("\n".join(lines(seen)))
    return 1 if code else 0


def _request(options: "argparse.Namespace", bundle: str | None, zone: str) -> "Request":
    """Make the request of a verb from its options."""
    from tidegate.agent.verbs import Request

    word = getattr(options, "duration", None)
    return Request(
        verb=options.command,
        reason=getattr(options, "reason", "") or getattr(options, "why", ""),
        bundle=os.path.abspath(bundle) if bundle else "",  # noqa: PTH100
        for_s=0 if word in (None, "off") else _seconds(word),
        until_at=_instant(getattr(options, "until", None), zone),
        rate=_rate(getattr(options, "rate", "auto")),
        keep=getattr(options, "keep", False),
        who=getattr(options, "who", ""),
        name=getattr(options, "name", ""),
        word=getattr(options, "word", "auto"),
        detached=options.command == "inhibit" and word is not None and not options.run,
    )


def _instant(word: str | None, zone: str) -> int:
    """Return a time that a person typed as unix seconds, 0 for none. One without an offset is by the clocks of `zone`."""
    if word is None:
        return 0
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from tidegate.core.errors import ConfigError

    try:
        at = datetime.fromisoformat(word.strip())
        return int((at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).timestamp())
    except (ValueError, LookupError, OverflowError, OSError) as error:
        raise ConfigError(
            "config.invalid",
            f"{word[:80]!r} is no time",
            hint='write it as "2026-12-24 06:00"; with another zone than the device\'s, as "2026-12-24T06:00+02:00"',
        ) from error


def _seconds(word: str) -> int:
    from tidegate.core.amounts import parse_duration
    from tidegate.core.errors import ConfigError

    found = parse_duration(word)
    if found <= 0:
        raise ConfigError("config.invalid", f"{word}: longer than no time at all")
    return found


def _rate(word: str) -> int:
    """Return bytes a second of what a person typed; 0 = no limit, -1 = as configured."""
    from tidegate.core import amounts

    if word == "auto":
        return -1
    if amounts.is_off(word):
        return 0
    text = word.removesuffix("/s").strip()
    if text[-1:] in "kKmMgG" and text[:-1].replace(".", "", 1).isdigit():
        text = f"{text[:-1]}{text[-1].upper()}B"
    return amounts.parse_rate(f"{text}/s")


def _explain(code: str) -> int:
    from tidegate.core.errors import HINTS
    from tidegate.core.reasons import REASONS

    if code not in REASONS and code not in HINTS:
        from tidegate.core.nearest import did_you_mean

        print(f"no code {code!r}{did_you_mean(code, {**REASONS, **HINTS})}", file=sys.stderr)
        return 2
    print(f"{code}: {REASONS.get(code, 'an error')}")
    if code in HINTS:
        print(f"  do    {HINTS[code]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
