"""What is known of an upgrade under way, on the disk before anything is done, and its copies."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ringfence.host.files import make_directory, read_json, replace_file, sync_directory
from ringfence.host.running import Fault
from ringfence.host.stack.generated import FOR_ALL
from ringfence.host.swapping import discard

JOURNALS = Path("/var/lib/ringfence/stack/upgrades")  # <project>/journal.json, and the project's directory as it was
BACKUPS = Path("/var/lib/ringfence/stack/backups")  # <project>/<service>/<time>-<tag>/<volume>.tar
PARTIAL = ".partial"

# Nothing but containers has been stopped; the new ones may have been started; the old ones are coming back.
COPYING, TRYING, RESTORING = "copying", "trying", "restoring"


@dataclass
class Upgraded:
    """One service whose image changes.

    Attributes:
        container: id of the old container.
        image: id of its image, and `was` its reference; `becomes` that of the new one.
        copy: name of the directory with the copies of its volumes.
        volumes: full name of each volume that was there → where its data are.
        keep: copies that stay.
        tried: whether a new container may have written to the volumes.
    """

    container: str
    image: str
    was: str
    becomes: str
    copy: str
    volumes: dict[str, str] = field(default_factory=dict)
    keep: int = 2
    tried: bool = True


@dataclass
class Journal:
    """An upgrade of one project.

    Attributes:
        owner: the role whose project it is.
        services: those whose image changes and whose volumes are copied, by name.
        had: those that are made anew together with them, and had a container before.
        new: those that are made together with them, and had none.
        why: the words of the new version that did not come up.
    """

    project: str
    owner: str
    phase: str = COPYING
    services: dict[str, Upgraded] = field(default_factory=dict)
    had: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    why: str = ""

    @property
    def here(self) -> Path:
        """Its directory."""
        return JOURNALS / self.project

    @property
    def before(self) -> Path:
        """The copy of the project's directory."""
        return self.here / "before"

    def write(self) -> None:
        """Bring it to the disk."""
        replace_file(self.here / "journal.json", json.dumps(asdict(self)) + "\n", 0o600)

    def close(self) -> None:
        """The upgrade is over: from here on, no run knows of it."""
        (self.here / "journal.json").unlink(missing_ok=True)
        sync_directory(self.here)
        discard(self.here)

    def copies(self, service: str) -> Path:
        """Return where the copies of a service's volumes are."""
        return BACKUPS / self.project / service

    def shown(self) -> str:
        """Name what is upgraded."""
        return ", ".join(f"{name} from {one.was} to {one.becomes}" for name, one in sorted(self.services.items()))


def private(path: Path) -> None:
    """Make a directory that is root's alone."""
    make_directory(FOR_ALL)
    make_directory(path, 0o700)


def journals(owner: str = "") -> list[Journal]:
    """Return the upgrades that were interrupted: all of them, or those of a role. Raises Fault, OSError."""
    found = []
    for path in sorted(JOURNALS.glob("*/journal.json")):
        said: dict[str, Any] = read_json(path) or {}
        try:
            services = {name: Upgraded(**one) for name, one in said.pop("services").items()}
            found.append(Journal(services=services, **said))
        except (TypeError, KeyError, AttributeError) as error:
            raise Fault(
                f"{path} is not understood ({error!r}): put back what {BACKUPS} and {path.parent} hold by hand, then"
                f" remove {path.parent}"
            ) from None
    return [one for one in found if owner in ("", one.owner)]


def copy_name(reference: str, now: float) -> str:
    """Return the name of the directory for a copy: when it was made, and of which version."""
    name, at, digest = reference.partition("@")
    last = name.rpartition("/")[2]
    tag = last.partition(":")[2] or (digest.rpartition(":")[2][:12] if at else "latest")
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{re.sub(r'[^A-Za-z0-9_.-]', '_', tag)}"


def prune(directory: Path, keep: int) -> list[Path]:
    """Remove the oldest copies of a service, and those that were never finished; return the ones that stay."""
    copies = sorted(path for path in directory.glob("*") if path.is_dir()) if directory.is_dir() else []
    whole = [path for path in copies if path.name != PARTIAL]
    for path in {*copies} - {*whole[-keep:]}:
        discard(path)
    return whole[-keep:]
