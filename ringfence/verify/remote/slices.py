"""Sockets of services in the host's network: made in the service's control group, by which the policy tells them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from ringfence.verify.remote.commands import Json, ProbeFailedError, run

CGROUPS = Path("/sys/fs/cgroup")
_ASKED = struct.Struct("iii")
ANSWERS = 5.0  # seconds within which a maker answers, or ends: it does next to nothing


def fenced(slices: dict[str, str]) -> list[str]:
    """Return the services whose slice, a path below the root of the control groups, the live policy matches.

    Args:
        slices: service → path of its slice.
    """
    rules = run("nft", "--stateless", "list", "chain", "inet", "ringfence", "RF-OUT") if slices else None
    return [service for service, path in slices.items() if f'"{path}"' in (rules or "")]


def control_groups(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the control groups of all processes of a container, that of its first one first; paths from their root.

    They are told by their mount namespace, which is the container's own also where its processes are the host's. There
    are none where the host has control groups of version 1 alone, or the container is gone.
    """
    try:
        first, home = _group_of(proc / str(pid)), (proc / str(pid) / "ns/mnt").readlink()
    except OSError:
        return []
    found = [first]
    for one in proc.iterdir():
        with contextlib.suppress(OSError):  # it is gone meanwhile
            if one.name.isdecimal() and (one / "ns/mnt").readlink() == home:
                found.append(_group_of(one))
    return [group for group in dict.fromkeys(found) if group]


def _group_of(process: Path) -> str:
    lines = (process / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")


class Maker:
    """A process in a slice that makes sockets for this one."""

    def __init__(self, path: str) -> None:
        """Start it. Raises ProbeFailedError where the slice is not there."""
        self._home = CGROUPS / path / "ringfence-verify"
        try:
            self._home.mkdir(exist_ok=True)
        except OSError as error:
            raise ProbeFailedError(f"its slice {path} cannot be entered: {error.strerror}") from error
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(ANSWERS)
        self._child = os.fork()
        if self._child == 0:
            with contextlib.suppress(BaseException):
                _close_all_but(theirs.fileno())
                (self._home / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
                _serve(theirs)
            os._exit(0)
        theirs.close()

    def socket(self, family: int, kind: int, proto: int) -> socket.socket:
        """Return a socket that belongs to the slice. Raises OSError."""
        try:
            self._ours.send(_ASKED.pack(family, kind, proto))
            answer, files, _, _ = socket.recv_fds(self._ours, 4, 1)
        except TimeoutError:
            # Whatever it still says would be taken for the answer to the next question.
            os.kill(self._child, signal.SIGKILL)
            raise TimeoutError(f"no socket was made in the slice within {ANSWERS:.0f} s") from None
        if not files:
            raise OSError(int.from_bytes(answer, "little") or 5, "no socket was made in the slice")
        return socket.socket(fileno=files[0])

    def close(self) -> str:
        """End the process, and take its control group away; returns what went wrong, "" if nothing did."""
        self._ours.close()
        said = ""
        if not self._ends():
            said = f"the process {self._child} in its slice did not end within {ANSWERS:.0f} s"
            os.kill(self._child, signal.SIGKILL)
            said += ", and was killed" if self._ends() else ", and not when it was killed either"
        with contextlib.suppress(OSError):
            self._home.rmdir()
        return said

    def _ends(self) -> bool:
        deadline = time.monotonic() + ANSWERS
        while os.waitpid(self._child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)  # waitpid knows no deadline
        return True


def _close_all_but(own: int) -> None:
    """Close what a child inherited: while it holds another maker's end, that one's process never hears of an end."""
    os.closerange(3, own)
    os.closerange(own + 1, os.sysconf("SC_OPEN_MAX"))


def _serve(asked: socket.socket) -> None:
    while wanted := asked.recv(_ASKED.size):
        try:
            with socket.socket(*_ASKED.unpack(wanted)) as made:
                socket.send_fds(asked, [b"\0"], [made.fileno()])
        except OSError as error:
            asked.send((error.errno or 5).to_bytes(4, "little"))


@contextlib.contextmanager
def makers(sources: list[Json], errors: dict[str, str]) -> Iterator[dict[int, Maker]]:
    """Start a maker for every source with a slice; ``errors`` gets why one could not be, or did not end."""
    found: dict[int, Maker] = {}
    try:
        for number, source in enumerate(sources):
            if source.get("slice"):
                try:
                    found[number] = Maker(source["slice"])
                except (ProbeFailedError, OSError) as failure:
                    errors[str(number)] = str(failure)
        yield found
    finally:
        for number, maker in found.items():
            if said := maker.close():
                errors[str(number)] = said
