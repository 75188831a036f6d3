"""Writes image archives that `docker load` reads, without an engine; layers that images share are stored once."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EPOCH, TIME = "2026-01-01T00:00:00Z", 1767225600


@dataclass(frozen=True)
class Entry:
    """One thing in a thin layer: a file, a link (`link` is its target) or, with neither content nor link, a folder."""

    path: str
    content: bytes | None = None
    link: str | None = None
    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True)
class Image:
    """An image: the layers (files) it is made of, from the bottom, and its configuration as Docker spells it."""

    name: str
    layers: Sequence[Path]
    config: Mapping[str, Any] = field(default_factory=dict)


def familiar(name: str) -> str:
    """The name as Docker itself writes it into archives: without the parts that everybody leaves out."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def layer(entries: Sequence[Entry]) -> bytes:
    """A tar archive with fixed times, so that equal content makes an equal layer."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path.lstrip("/"))
            info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.owner, entry.owner, TIME
            if entry.link is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(entry.content)
            archive.addfile(info, io.BytesIO(entry.content) if entry.content is not None else None)
    return target.getvalue()


def sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def write_images(target: Path, images: Sequence[Image]) -> None:
    """Write an archive of images in the format of `docker save`, understood by every engine from 1.10 on."""
    digests = {path: sha256(path) for image in images for path in image.layers}
    manifest = []
    with tarfile.open(target, "w") as archive:
        for path, digest in digests.items():
            archive.add(path, f"{digest}.tar", filter=anonymous)
        for image in images:
            config = json.dumps(
                {
                    "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
                    "os": "linux",
                    "created": EPOCH,
                    "config": dict(image.config),
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digests[path]}" for path in image.layers]},
                    "history": [{"created": EPOCH, "created_by": "ringfence lab"} for _ in image.layers],
                }
            ).encode()
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            if name not in archive.getnames():
                add(archive, name, config)
            manifest.append(
                {
                    "Config": name,
                    "RepoTags": [familiar(image.name)],
                    "Layers": [f"{digests[path]}.tar" for path in image.layers],
                }
            )
        add(archive, "manifest.json", json.dumps(manifest).encode())


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(content), TIME
    archive.addfile(info, io.BytesIO(content))


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = TIME
    return info
