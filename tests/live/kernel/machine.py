"""A machine without disk and network card: a kernel, and what of this machine's programs `inside.py` needs."""

from __future__ import annotations

import json
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.shell import LabError, output, tail
from tests.live.kernel.debian import Kernel

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 240  # for all of it; an idle machine needs a tenth
PROGRAMS = ("ip", "modprobe", "mount", "nft", "sh", "unshare")
MODULES = re.compile(r"kernel/net/(bridge/(netfilter/)?|netfilter/|ipv[46]/netfilter/)(br|nf)[^/]*\.ko|.*/veth\.ko")
HOME = f"python/lib/python{sys.version_info.major}.{sys.version_info.minor}"
INIT = "#!/bin/python3 -S\nfrom tests.live.kernel.inside import main\n\nmain()\n"
# What a kernel does not know of its command line becomes the environment of the first process.
COMMAND_LINE = "console=ttyS0 loglevel=4 panic=-1 mitigations=off PYTHONHOME=/python PYTHONUTF8=1 PATH=/bin"
UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH  # times of files do not come along
CONSOLE = "dev/console"  # where the first process writes

Content = bytes | str  # of a file; where a link leads


def boot(kernel: Kernel, files: Mapping[str, str]) -> dict[str, Any]:
    """Boot it with further files ({path without leading slash: text}) and return what it says.

    Raises:
        LabError: it says nothing, or that it failed; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="ringfence-kernel-") as folder:
        initrd, console, answer = (Path(folder) / name for name in ("initrd", "console", "answer"))
        contents: dict[str, Content] = {path: text.encode() for path, text in files.items()}
        initrd.write_bytes(archive({**contents, **_programs(), **_python(), **_modules(kernel), "init": INIT.encode()}))
        command = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", "768", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-kernel", str(kernel.image), "-initrd", str(initrd),
            "-append", COMMAND_LINE, "-serial", f"file:{console}", "-serial", f"file:{answer}",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            why = done.stderr or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            why = f"not done in {SECONDS} s"
        said = answer.read_text() if answer.exists() else ""
        words = tail(console.read_text(errors="replace"), 60) if console.exists() else ""
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        raise LabError(f"the machine does not answer ({why}): {said}\n{words}") from None
    if "error" in found:
        raise LabError(f"{found['error']}\n{words}")
    return found


def archive(files: Mapping[str, Content]) -> bytes:
    """What the kernel unpacks (a cpio archive of the kind "newc"): files, links, their folders, and the console."""
    entries: dict[str, tuple[int, bytes]] = {"dev": (stat.S_IFDIR | 0o755, b""), CONSOLE: (stat.S_IFCHR | 0o600, b"")}
    for path, content in files.items():
        for folder in [*Path(path).parents][-2::-1]:
            entries[str(folder)] = stat.S_IFDIR | 0o755, b""
        kind = stat.S_IFLNK if isinstance(content, str) else stat.S_IFREG
        entries[path] = kind | 0o755, os.fsencode(content) if isinstance(content, str) else content
    out = bytearray()
    for number, (path, (mode, data)) in enumerate([*sorted(entries.items()), ("TRAILER!!!", (0, b""))], start=1):
        name = path.encode() + b"\0"
        device = (5, 1) if path == CONSOLE else (0, 0)
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + name, data):
            out += part.ljust(-(-len(part) // 4) * 4, b"\0")
    return bytes(out)


def _programs() -> dict[str, Content]:
    found: dict[str, Content] = {"sbin": "bin", "var/run": "/run"}
    paths = {name: shutil.which(name) for name in PROGRAMS}
    if missing := [name for name, path in paths.items() if not path]:
        raise LabError(f"not installed on this machine: {', '.join(missing)}")
    real = {name: Path(str(path)).resolve() for name, path in paths.items()} | {
        "python3": Path(sys.executable).resolve()
    }
    found |= {f"bin/{name}": path.read_bytes() for name, path in real.items()}
    return found | _libraries(real.values())


def _libraries(programs: Iterable[Path]) -> dict[str, Content]:
    said = output(["ldd", *(str(path) for path in programs)])
    return {path.lstrip("/"): Path(path).read_bytes() for path in re.findall(r"(/\S+) \(0x", said)}


def _python() -> dict[str, Content]:
    """The modules that `inside.py` imports, compiled: an emulated machine is slow at that."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import encodings.ascii, json, tests.live.kernel.inside\n"
        "files = {n: getattr(m, '__file__', None) for n, m in sys.modules.items() if n != '__main__'}\n"
        "print(json.dumps({n: f for n, f in files.items() if f}))"
    )
    imported = json.loads(output([sys.executable, "-S", "-B", "-I", "-c", script, str(ROOT)]))
    found: dict[str, Content] = {}
    libraries = []
    with tempfile.TemporaryDirectory(prefix="ringfence-kernel-") as folder:
        for name, file in imported.items():
            path = Path(file)
            if path.suffix == ".so":
                found[f"{HOME}/lib-dynload/{path.name}"] = path.read_bytes()
                libraries.append(path)
            else:
                place = f"{name.replace('.', '/')}{'/__init__' if path.name == '__init__.py' else ''}.pyc"
                made = py_compile.compile(file, f"{folder}/{place}", doraise=True, invalidation_mode=UNCHECKED)
                found[f"{HOME}/{place}"] = Path(str(made)).read_bytes()
    return found | _libraries(libraries)


def _modules(kernel: Kernel) -> dict[str, Content]:
    """The modules of bridges and of nftables, those that they need, and the lists by which they are found."""
    needs = dict(line.split(":") for line in (kernel.modules / "modules.dep").read_text().splitlines())
    wanted = {name for first in needs if MODULES.fullmatch(first) for name in (first, *needs[first].split())}
    lists = [path.name for path in kernel.modules.glob("modules.*")]
    home = f"lib/modules/{kernel.release}"
    files = {f"{home}/{name}": (kernel.modules / name).read_bytes() for name in (*wanted, *lists)}
    return {"usr/lib/modules": "/lib/modules", **files}
