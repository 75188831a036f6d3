"""``python -m ringfence pin [SERVICE…]``: writes the digests of what runs behind the images of a lab."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.importing.command import declared, settings
from ringfence.importing.problems import ComposeError
from ringfence.importing.running import full_name, images
from ringfence.inventory.front import InventoryError, lab_directory
from ringfence.inventory.labs import hosts_file
from ringfence.inventory.parts import PREFIX


class Wanted(NamedTuple):
    """A service whose image has no digest."""

    service: str
    host: str
    image: str


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m ringfence pin",
        description="Ask the hosts over Ansible which images run, and write their digests into the files of the lab "
        "(RINGFENCE_LAB says which). Nothing is changed on any host, and nothing but image: in the files.",
    )
    made.add_argument("services", nargs="*", metavar="SERVICE", help="by default all whose image has no digest")
    made.add_argument("--dry", action="store_true", help="show what would be written")
    made.add_argument(
        "--vault-id", action="append", default=[], metavar="LABEL@SOURCE", help="as ansible-vault takes it"
    )
    made.add_argument("--vault-password-file", default="", metavar="FILE", help="as ansible-vault takes it")
    return made


def main(arguments: list[str]) -> int:
    """Pin images. Returns the exit status: 1 where one that was asked for could not be pinned."""
    try:
        given = parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    settings(given)
    try:
        directory = lab_directory()
        wanted = list(unpinned(declared(directory), given.services))
        found = {host: images(hosts_file(directory), host) for host in sorted({one.host for one in wanted})}
        pins, faults = decide(wanted, found)
        lines, missing = write(directory, pins, dry=given.dry)
    except (ComposeError, InventoryError) as error:
        sys.stderr.write(f"ringfence pin: {error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines or ["nothing to pin"]))
    sys.stderr.write("".join(f"{line}\n" for line in [*faults, *missing]))
    return 1 if faults or missing else 0


def unpinned(lab: Mapping[str, Any], names: list[str]) -> Iterator[Wanted]:
    """Yield the services of a lab, of parts too, whose image has no digest.

    Raises:
        ComposeError: a name is no service.
    """
    parts = [
        value.get("services") for name, value in lab.items() if name.startswith(PREFIX) and isinstance(value, Mapping)
    ]
    services = {
        str(name): service
        for of in (lab.get("lab_services"), *parts)
        for name, service in (of or {}).items()
        if isinstance(service, Mapping)
    }
    for name in names:
        if name not in services:
            raise ComposeError(f"'{name}' is not a service of the lab")
    for name, service in sorted(services.items()):
        image, host = service.get("image"), service.get("host")
        if isinstance(image, str) and isinstance(host, str) and "@" not in image and (not names or name in names):
            yield Wanted(name, host, image)


def decide(wanted: list[Wanted], found: Mapping[str, Mapping[str, set[str]]]) -> tuple[dict[str, str], list[str]]:
    """Return image as it is declared → with its digest, and why others have none."""
    pins: dict[str, str] = {}
    faults: list[str] = []
    for image in dict.fromkeys(one.image for one in wanted):
        of = [one for one in wanted if one.image == image]
        runs = {digest.partition("@")[2] for one in of for digest in found[one.host].get(full_name(image), ())}
        who = ", ".join(one.service for one in of)
        if not runs:
            faults.append(f"{image} ({who}): nothing runs of it on {', '.join(sorted({one.host for one in of}))}")
        elif runs == {""}:
            faults.append(f"{image} ({who}): it was made on the host and has no digest")
        elif len(runs - {""}) > 1:
            faults.append(
                f"{image} ({who}): different ones run, {', '.join(sorted(runs - {''}))}: write the one to use"
            )
        else:
            name = image.removesuffix(":latest")
            pins[image] = f"{name}@{next(iter(runs - {''}))}"
    return pins, faults


def write(directory: Path, pins: Mapping[str, str], *, dry: bool) -> tuple[list[str], list[str]]:
    """Put digests behind images in the files of a lab; everything else in them stays as it is.

    Returns:
        What was written, a line each, and a line for each image that stands in no file as it is.
    """
    lines: list[str] = []
    left = dict(pins)
    for path in sorted(path for end in ("yml", "yaml") for path in directory.rglob(f"*.{end}")):
        text = path.read_text(encoding="utf-8")
        new = text
        for image, pinned in pins.items():
            form = re.compile(rf"(\bimage:[ \t]*[\"']?){re.escape(image)}(?=[\"'\s,}}]|$)", re.MULTILINE)
            new, count = form.subn(rf"\g<1>{pinned}", new)
            if count:
                left.pop(image, None)
                lines.append(f"{path.relative_to(directory)}: {image} → {pinned}")
        if new != text and not dry:
            temporary = path.with_name(f".{path.name}.pinned")
            temporary.write_text(new, encoding="utf-8")
            temporary.chmod(path.stat().st_mode & 0o777)
            temporary.replace(path)
    return lines, [f"{image}: stands in no file of the lab like that; write {pinned}" for image, pinned in left.items()]
