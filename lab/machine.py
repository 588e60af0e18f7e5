"""One virtual machine: switched on, watched and spoken to over its serial console, and killed like a device whose power goes."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab.tools import find
from lab.volume import Volume

#: A boot takes 4 to 12 s in software emulation on a quiet core; other work on the machine makes it many times that.
BOOT_S: Final = 180.0
_MEMORY_MIB: Final = 256


class SilentError(AssertionError):
    """What was waited for did not come in time; the message holds the end of what the console said."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a machine is made of.

    Attributes:
        firmware: arguments of QEMU that bring the boot loader: `("-bios", ROM)`, or a kernel for direct boot; none: SeaBIOS.
        machine: QEMU's machine type; U-Boot finds its disk on `pc` alone.
        accelerator: of `lab.kvm.accelerator`.
        extra: more arguments.
        network: a card with QEMU's own network behind it; the host's loopback is 10.0.2.2 for the guest.
    """

    firmware: tuple[str, ...] = ()
    machine: str = "pc"
    accelerator: str = "tcg"
    memory_mib: int = _MEMORY_MIB
    extra: tuple[str, ...] = ()
    network: bool = True


@dataclass
class Machine:
    """A machine and its console.

    Attributes:
        disk: an image file, or a volume that may forget what was not flushed.
        log: where the console is kept, one boot after the other.
        cpu_s: CPU seconds of all QEMU processes that have ended.
        starts: how often it was switched on.
    """

    hardware: Hardware
    disk: Path | Volume
    log: Path
    cpu_s: float = 0.0
    starts: int = 0
    _process: "subprocess.Popen[bytes] | None" = None
    _text: str = ""
    _mark: int = 0
    _asked: int = 0
    _said: threading.Condition = field(default_factory=threading.Condition)
    _reader: threading.Thread | None = None
    _monitor: socket.socket | None = None

    def start(self, *more: str) -> None:
        """Switch on."""
        assert self._process is None or self._process.poll() is not None
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*self.command("stdio"), *_control(theirs.fileno()), *more],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._monitor = ours
        self.starts += 1
        with self._said:
            self._text += f"\n--- power on ({self.starts}) ---\n"
            self._mark = len(self._text)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def command(self, console: str) -> list[str]:
        """Return the command line of this machine, with its serial console on `console`."""
        hardware = self.hardware
        if isinstance(self.disk, Volume):
            drive = f"driver=nbd,server.type=unix,server.path={self.disk.socket_path}"
        else:
            drive = f"driver=raw,file.driver=file,file.filename={self.disk}"
        # It ends with the thread that started it, whatever ends that: a machine left behind would run for ever.
        command = [find("setpriv"), "--pdeathsig", "KILL", "--"]
        command += [find("qemu-system-x86_64"), "-M", hardware.machine]
        command += ["-accel", hardware.accelerator]
        command += ["-cpu", "host" if hardware.accelerator == "kvm" else "max"]
        command += ["-m", str(hardware.memory_mib), "-nodefaults", "-display", "none"]
        command += ["-serial", console, "-no-user-config"]
        command += ["-drive", f"{drive},if=none,id=disk,cache.direct=off,cache.no-flush=off"]
        command += ["-device", "virtio-blk-pci,drive=disk"]
        if hardware.network:
            command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        return [*command, *hardware.firmware, *hardware.extra]

    # --- the console ------------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """Everything that the console said so far, carriage returns removed."""
        with self._said:
            return self._text

    def expect(self, pattern: str, timeout_s: float = BOOT_S) -> re.Match[str]:
        """Wait until the console says something new that matches; what is before its end will not be looked at again.

        Raises:
            SilentError: it did not, or the machine ended.
        """
        wanted = re.compile(pattern, re.MULTILINE)
        until = time.monotonic() + timeout_s
        with self._said:
            while True:
                found = wanted.search(self._text, self._mark)
                if found is not None:
                    self._mark = found.end()
                    return found
                if not self.running and self._reader_done():
                    raise SilentError(
                        f"the machine ended before it said {pattern!r}\n{self._tail()}"
                    )
                left = until - time.monotonic()
                if left <= 0:
                    raise SilentError(
                        f"not said within {timeout_s:g} s: {pattern!r}\n{self._tail()}"
                    )
                self._said.wait(min(left, 0.5))

    def send(self, line: str) -> None:
        """Type a line."""
        assert self._process is not None and self._process.stdin is not None  # noqa: PT018 - started
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, line: str, timeout_s: float = 60.0) -> str:
        """Type a command at the guest's prompt and return what it printed.

        Raises:
            SilentError: no answer, or an exit code other than 0.
        """
        self._asked += 1
        number = self._asked
        self.send(f"echo ASKED {number}\n{line}\necho ANSWERED {number} $?")
        self.expect(f"^ASKED {number}$", timeout_s)
        found = self.expect(rf"(?s)(.*?)^ANSWERED {number} (\d+)$", timeout_s)
        if found[2] != "0":
            raise SilentError(f"{line!r} ended with {found[2]}: {found[1][-1000:]}")
        return found[1].lstrip("\n")

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with self.log.open("a", encoding="utf-8") as log:
            while piece := os.read(process.stdout.fileno(), 65536):
                text = piece.decode("utf-8", "replace").replace("\r", "")
                log.write(text)
                log.flush()
                with self._said:
                    self._text += text
                    self._said.notify_all()
        with self._said:
            self._said.notify_all()

    def _reader_done(self) -> bool:
        return self._reader is None or not self._reader.is_alive()

    def _tail(self) -> str:
        return self._text[-4000:]

    # --- the power --------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return self._process is not None and self._process.poll() is None

    def reset(self) -> None:
        """Press the reset button, as a hardware watchdog would."""
        assert self._monitor is not None
        for order in ("qmp_capabilities", "system_reset"):
            self._monitor.sendall(json.dumps({"execute": order}).encode() + b"\n")

    def kill(self) -> None:
        """Take the power away: `SIGKILL`, in the middle of whatever it does. Returns when nothing of it is left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.cpu_s += cpu_s(self._process.pid)
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._reader is not None:
            self._reader.join(10)
        for end in (self._process.stdin, self._process.stdout, self._monitor):
            if end is not None:
                end.close()
        self._process = self._monitor = None
        if isinstance(self.disk, Volume):
            self.disk.settle()


def _control(descriptor: int) -> list[str]:
    return ["-chardev", f"socket,id=mon,fd={descriptor}", "-mon", "chardev=mon,mode=control"]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
