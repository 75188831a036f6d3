"""Devices that hand over the host: by their names, and on the host by what they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ringfence.host import handing
from ringfence.host.handing import devices_leading, handed
from ringfence.model.lab import Service, Volume
from ringfence.model.mounts import given_of_host

HANDS_OVER = (
    "bcache0", "drbd0", "pmem0", "ng0n1", "root", "cciss/c0d0", "dasda", "dasda1", "ublkb0", "zram0", "fd0", "scd0",
    "sr0", "cdrom", "megaraid_sas_ioctl_node", "hidraw0", "psaux", "uio0", "zvol/tank/vm", "sda", "nvme0n1p1", "mem",
    "mapper/vg0-root", "disk/by-id/x", "input/event0", "bus/usb", "tty1", "hvc0", "sg0", "dax0.0", "md/0",
)  # fmt: skip
ALONE = (
    "dri", "dri/renderD128", "ttyUSB0", "ttyACM0", "ttyS0", "ttyAMA0", "serial/by-id/usb-x", "net/tun", "fuse", "kvm",
    "video0", "snd", "usb/lp0", "kfd", "nvidia0", "apex_0", "gpiochip0", "spidev0.0", "rfkill", "dvb/adapter0",
)  # fmt: skip


def given(device: str) -> list[str]:
    found = handed(privileged=False, pid="", devices=[f"{device}:/dev/x:r"], volumes=[])
    return [f"{one.setting} {one.subject}" for one in found]


@pytest.mark.parametrize("name", HANDS_OVER)
def test_a_disk_the_memory_and_what_is_typed_are_known_by_name(name: str) -> None:
    assert given(f"/dev/{name}") == [f"devices /dev/{name}"]


@pytest.mark.parametrize("name", ALONE)
def test_what_is_a_devices_own_is_given(name: str) -> None:
    assert given(f"/dev/{name}") == []


def test_on_the_host_a_device_is_known_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume group's name, a link, a node that was made by hand, and a directory of them."""
    disk, own, group = tmp_path / "disk", tmp_path / "own", tmp_path / "vg0"
    group.mkdir()
    for path in (disk, own):
        path.write_text("", encoding="utf-8")
    (tmp_path / "link").symlink_to("/dev/full")
    (group / "root").symlink_to(disk)
    true = Path.stat

    def faked(path: Path, **options: Any) -> Any:
        if Path(os.path.realpath(path)) in (disk, own):
            kind, number = (stat.S_IFBLK, os.makedev(253, 0)) if os.path.realpath(path) == str(disk) else (
                stat.S_IFCHR, os.makedev(1, 1))  # fmt: skip
            return type("", (), {"st_mode": kind | 0o600, "st_rdev": number})()
        return true(path, **options)

    monkeypatch.setattr(Path, "stat", faked)
    # /dev/full is 1:7; as the kernel calls a node, so it is called here, whatever its path.
    monkeypatch.setattr(handing, "_kernels_name", lambda number: "mem" if number == os.makedev(1, 1) else "full")
    paths = [str(disk), str(own), str(group), str(tmp_path / "link"), str(tmp_path / "none"), f"{group}/root"]
    found = devices_leading(paths)
    assert set(found) == {str(disk), str(own), str(group), f"{group}/root"}
    assert found[f"{group}/root"].startswith(f"the disk {disk}, which hands the host to the container: its disks")
    assert found[str(own)].startswith("/dev/mem, which")


def test_the_kernel_tells_its_own_names() -> None:
    assert handing._kernels_name(os.makedev(1, 3)) == "null"
    assert handing._kernels_name(os.makedev(4095, 1)) == ""


def test_the_clock_of_the_host_is_confirmed_in_any_network() -> None:
    harmless = ["NET_ADMIN", "NET_RAW", "SYS_NICE", "IPC_LOCK", "SYS_RESOURCE", "WAKE_ALARM"]
    found = handed(
        privileged=False, pid="", devices=[], volumes=[], capabilities=["SYS_TIME", "SYS_PACCT", *harmless]
    )  # fmt: skip
    assert [one.subject for one in found] == ["SYS_PACCT", "SYS_TIME"]


def test_verify_names_what_is_confirmed_whatever_it_leads_to() -> None:
    service = Service(
        host="atlas", image="app:1", segments=("a",), allow_host=True, devices=("/dev/vg0/root:/dev/x",),
        volumes=(Volume(source="/", target="/h", read_only=True), Volume(source="/srv/units", target="/u")),
    )  # fmt: skip
    assert list(given_of_host(service)) == [
        "volumes /, Docker's socket with it",
        "volumes /srv/units, wherever it leads",
        "devices /dev/vg0/root, wherever it leads",
    ]
    assert list(given_of_host(service.model_copy(update={"allow_host": False, "volumes": ()}))) == []
