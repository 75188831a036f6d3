"""What a mount hands over: by whatever name, by what contains it, by what lies in it, and what is left alone."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.host import mounts
from ringfence.host.mountinfo import mount_table
from ringfence.host.mounts import handed_over, leading, led_below, people, plain
from ringfence.host.running import Fault
from ringfence.model.lab import Volume
from ringfence.model.mounts import handed_by

HANDS_OVER = [
    "/", "//", "/.", "/var", "/var/", "/var/lib", "/run", "/var/run", "/etc", "/home", "/opt", "/usr", "/root",
    "//var/run/docker.sock", "/var/run/../run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock",
    "/run/podman", "/run/containerd/containerd.sock", "/run/user/1000/docker.sock", "/run/user/1000/podman/podman.sock",
    "/run/user/1000", "/run/user", "/run/user/1000/bus", "/home/alice/.docker/run/docker.sock", "/srv/odd/docker.sock",
    "/var/lib/docker", "/var/lib/docker/volumes/x/_data", "/var/lib/docker/volumes", "/var/lib/containerd",
    "/var/lib/containers/storage", "/home/alice/.local/share/docker", "/home/alice/.local/share",
    "/proc", "/proc/1/root", "/proc/self/root/etc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/sda", "/dev/./mem",
    "/etc/shadow", "/etc/gshadow", "/etc/sudoers.d/app", "/etc/ssh", "/etc/ssl", "/etc/pam.d", "/etc/cron.d",
    "/etc/systemd/system", "/etc/docker/daemon.json", "/etc/ringfence", "/etc/ringfence/policy", "/etc/ufw",
    "/root/.ssh", "/root/.bashrc", "/home/alice", "/home/alice/.ssh", "/home/alice/.ssh/authorized_keys",
    "/home/alice/.bashrc", "/home/alice/.config", "/srv/git/.ssh", "/var/spool", "/var/spool/cron/crontabs",
    "/boot", "/opt/ringfence/stacks/app/secrets", "/var/lib/ringfence/stack/secrets", "/run/snapd.socket",
    "/etc/NetworkManager", "/etc/ppp", "/etc/letsencrypt", "/etc/letsencrypt/live/x/privkey.pem", "/etc/openvpn",
    "/etc/ipsec.secrets", "/etc/zfs", "/etc/grub.d", "/var/lib/cloud", "/var/lib/polkit-1", "/var/lib/libvirt",
    "/var/backups", "/swapfile", "/run/fail2ban/fail2ban.sock", "/run/tailscale", "/run/supervisor.sock",
    "/run/balena.sock", "/run/dockershim.sock", "/run/host-services/docker.proxy.sock", "/tmp", "/var/tmp", "/run/app",
    "/tmp/tmux-1000/default", "/tmp/ssh-XXXXabc/agent.1", "/tmp/.X11-unix", "/run/ringfence", "/run/runc", "/run/crun",
    "/run/libpod", "/run/netns", "/home/alice/.bash_aliases", "/home/alice/.local/bin", "/home/alice/.local",
    "/home/alice/bin", "/home/alice/.zlogin", "/home/alice/.forward", "/home/alice/.aws", "/home/alice/.kube/config",
    "/home/alice/.docker/config.json", "/home/alice/.docker", "/tmp/tmux-1\nx", "/run/chrony",
    "/run/dbus/system_bus_socket", "/var/run/dbus", "/run/systemd/private", "/var/snap/lxd/common/lxd/unix.socket",
]  # fmt: skip
WRITTEN = ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/usr/bin", "/bin", "/sbin/init",
           "/lib/modules", "/usr/share/zoneinfo", "/usr/local/lib/app", "/etc/localtime", "/etc/timezone",
           "/etc/machine-id", "/etc/app/app.conf", "/etc/sshx", "/etc/update-motd.d", "/etc/dhcp", "/etc/anacrontab",
           "/etc/rcS.d", "/etc/rc2.d", "/etc/alternatives", "/etc/fail2ban", "/etc/ca-certificates", "/etc/rsyslog.d",
           "/etc/exports", "/run/udev", "/run/udev/rules.d", "/run/log/journal", "/run/utmp"]  # fmt: skip
ALONE = [
    "/srv", "/srv/app", "/srv/run/docker", "/data", "/mnt/nas", "/media", "/opt/app", "/var/lib/app", "/var/log",
    "/var/www", "/home/alice/docker/app", "/home/alice/Music", "/dev/shm", "/dev/net/tun", "/dev/log",
    "/run/systemd/journal/dev-log", "/run/mysqld", "/run/postgresql/.s.PGSQL.5432", "/run/avahi-daemon/socket",
    "/varx", "/procs", "/rooted", "/var/lib/dockers", "/run/lock/app", "/srv/docker.sock.d", "/tmp/app", "/tmp/sshd",
    "/home/alice/bind", "/srv/bin", "/etcetera", "/runner", "/tmpx", "/var/tmp/transcode",
]  # fmt: skip


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("path", HANDS_OVER)
def test_what_hands_the_host_over_is_known_by_any_name(path: str, read_only: bool) -> None:
    handed = handed_over(path, read_only)
    assert handed is not None
    assert all(handed)
    assert handed_by(Volume(source=path, target="/mnt", read_only=read_only)) == handed


@pytest.mark.parametrize("path", WRITTEN)
def test_what_a_container_may_read_it_may_not_write(path: str) -> None:
    assert handed_over(path, read_only=True) is None
    assert ":ro" in str(handed_over(path))


@pytest.mark.parametrize("path", ALONE)
def test_what_is_nobody_elses_is_mounted(path: str) -> None:
    assert handed_over(path) is None


@given(
    st.sampled_from(HANDS_OVER).filter(lambda path: not path.startswith("/var/run/..")),
    st.lists(st.sampled_from(["/", "/./", "//", "/x/../"]), min_size=1, max_size=4),
)
def test_slashes_and_dots_change_nothing(path: str, joints: list[str]) -> None:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    astray = "".join(joints[index % len(joints)] + part for index, part in enumerate(parts)) or joints[0]
    assert plain(astray) == plain(path)
    assert (handed_over(astray) is None) == (handed_over(path) is None)


@given(st.sampled_from(HANDS_OVER))
def test_what_contains_it_hands_it_over_as_well(path: str) -> None:
    for above in Path(plain(path)).parents:
        if above not in (Path("/srv"), Path("/srv/odd"), Path("/srv/git")):
            assert handed_over(str(above)), above


def test_the_homes_of_people_are_known_wherever_they_are(tmp_path: Path) -> None:
    users = tmp_path / "passwd"
    users.write_text(
        "root:x:0:0:root:/root:/bin/bash\nbob:x:1001:1001::/srv/users/bob:/bin/bash\n"
        "media:x:1002:1002::/srv/media:/usr/sbin/nologin\nwww:x:33:33::/var/www:/bin/sh\nbroken\n",
        encoding="utf-8",
    )
    homes = people(users)
    assert homes == ["/root", "/srv/users/bob"]
    for path in ("/srv/users/bob", "/srv/users", "/srv", "/srv/users/bob/.profile"):
        assert handed_over(path, homes=homes), path
    assert handed_over("/srv/users/bob/app", homes=homes) is None
    assert handed_over("/srv/media", homes=homes) is None


def test_a_moved_directory_of_the_engine_is_one() -> None:
    assert handed_over("/data/docker") is None
    for path in ("/data/docker", "/data", "/data/docker/volumes/x/_data"):
        assert handed_over(path, engines=["/data/docker"]), path


def test_links_and_the_same_file_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, chain, harmless = tmp_path / "link", tmp_path / "chain", tmp_path / "data"
    link.symlink_to("/etc/ssh")
    chain.symlink_to(link)
    harmless.mkdir()
    found = leading({str(link): True, str(chain): False, f"{link}/keys": True, str(harmless): False})
    assert set(found) == {str(link), str(chain), f"{link}/keys"}
    assert str(found[str(chain)]).startswith("/etc/ssh, which hands the host's logins to the container")
    # A hard link has the inode of what it was made of.
    real, other = tmp_path / "real", tmp_path / "other"
    real.write_text("", encoding="utf-8")
    other.hardlink_to(real)
    monkeypatch.setattr(mounts, "_PLACES", (*mounts._PLACES, (str(real), mounts._SOCKET)))
    found = leading({str(other): True})
    assert f"{real}, which hands the whole host" in str(found[str(other)])
    assert not found[str(other)].confirmable


def test_what_lies_in_a_place_that_is_a_link_is_that_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, place = tmp_path / "data" / "docker", tmp_path / "docker"
    (moved / "volumes").mkdir(parents=True)
    place.symlink_to(moved)
    monkeypatch.setattr(mounts, "_PLACES", (*mounts._PLACES, (str(place), mounts._ENGINE)))
    for path in (moved, moved / "volumes", moved.parent):
        assert str(place) in str(leading({str(path): True})[str(path)]), path
    assert leading({str(tmp_path / "data2"): False}) == {}


# -- what is mounted where

ORDINARY = r"""22 27 0:21 / /proc rw,relatime shared:13 - proc proc rw
23 27 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw
24 27 0:6 / /dev rw,relatime shared:2 - devtmpfs udev rw,size=1k
25 24 0:23 / /dev/shm rw shared:3 - tmpfs tmpfs rw
26 27 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,mode=755
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 254:1 / /home rw shared:30 - ext4 /dev/vdb1 rw
29 27 254:2 / /var rw shared:31 - ext4 /dev/vdb2 rw
30 27 254:3 / /srv rw shared:32 - xfs /dev/vdc rw
31 30 0:50 / /srv/media rw shared:33 - nfs4 nas:/media rw
32 30 0:51 / /srv/with\040space rw - tmpfs tmpfs rw
33 29 0:60 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
34 29 254:3 /films /var/lib/docker/volumes/films/_data rw - xfs /dev/vdc rw
35 26 0:4 net:[4026532188] /run/docker/netns/61f9ce412bdf rw - nsfs nsfs rw
36 30 254:3 /share /srv/export/share rw - xfs /dev/vdc rw
"""


def led(sources: dict[str, bool], *more: str, text: str = ORDINARY) -> dict[str, str]:
    """What sources lead to on a host on which more is mounted."""
    with tempfile.TemporaryDirectory() as directory:
        told = Path(directory) / "mountinfo"
        told.write_text(text + "".join(f"{line}\n" for line in more), encoding="utf-8")
        passed_over = re.compile("/var/lib/docker(?:" + mounts._IN_PASSING + ")")
        found = leading(sources, table=mount_table(told, passed_over))
    return {source: str(one) for source, one in found.items()}


def test_file_systems_of_their_own_are_ordinary() -> None:
    sources = ["/srv", "/srv/app", "/srv/media", "/srv/media/films", "/srv/films", "/srv/export", "/srv/share",
               "/var/lib/app", "/home/alice/app", "/opt/app", "/data", "/srv/with space", "/dev/net/tun"]  # fmt: skip
    assert led(dict.fromkeys(sources, False)) == {}


@pytest.mark.parametrize(
    ("source", "mount", "end"),
    [
        # below a listed place, the place itself, what contains one, in both directions
        ("/srv/units", "40 30 254:0 /etc/systemd/system /srv/units rw - ext4 /dev/vda rw", "/etc/systemd/system"),
        ("/srv/units/x", "40 30 254:0 /etc/systemd /srv/units rw - ext4 /dev/vda rw", "/etc/systemd/x"),
        ("/srv/all/sub", "40 30 254:0 / /srv/all/sub rw - ext4 /dev/vda rw", "/"),
        ("/srv/again/etc/ssh", "40 30 254:0 / /srv/again rw - ext4 /dev/vda rw", "/etc/ssh"),
        ("/srv/units", "40 27 254:3 /units /etc/systemd/system rw - xfs /dev/vdc rw", "/etc/systemd/system"),
        ("/srv/units/sub", "40 27 254:3 /units /etc/systemd/system rw - xfs /dev/vdc rw", "/etc/systemd/system/sub"),
        ("/srv/deep", "40 27 254:3 /deep/units /etc/systemd/system rw - xfs /dev/vdc rw", "/etc/systemd/system"),
        ("/srv/key", "40 30 254:0 /etc/shadow /srv/key rw - ext4 /dev/vda rw", "/etc/shadow"),
        ("/srv/sock", "40 30 0:25 /docker.sock /srv/sock rw - tmpfs tmpfs rw", "/run/docker.sock"),
        # below the source, where a recursive bind passes it on
        ("/srv/app", "40 30 254:0 /etc /srv/app/inner rw - ext4 /dev/vda rw", "/etc (mounted at /srv/app/inner)"),
        ("/srv/app", "40 30 0:21 / /srv/app/proc rw - proc proc rw", "/proc (mounted at /srv/app/proc)"),
        ("/srv/app", "40 30 0:99 / /srv/app/p rw - proc proc rw", "/srv/app/p (mounted at /srv/app/p)"),
        ("/srv/app", "40 30 254:0 /usr /srv/app/u rw - ext4 /dev/vda rw", "/usr (mounted at /srv/app/u)"),
        # a file system of the kernel by another name
        ("/srv/p/1", "40 30 0:99 / /srv/p rw - proc proc rw", "/srv/p/1"),
        # subvolumes of btrfs are parts of one file system
        ("/srv/top", "40 27 0:40 /@etc /etc rw - btrfs /d rw\n41 30 0:40 / /srv/top rw - btrfs /d rw", "/etc"),
        ("/srv/t/@etc/ssh", "40 27 0:40 /@etc /etc rw - btrfs /d rw\n41 30 0:40 / /srv/t rw - btrfs /d rw", "/etc/ssh"),
    ],
)  # fmt: skip
def test_what_is_mounted_elsewhere_is_known_by_where_it_is_as_well(source: str, mount: str, end: str) -> None:
    assert led({source: True}, mount)[source].startswith(f"{end}, which hands "), led({source: True}, mount)


def test_what_a_later_mount_hides_is_not_there() -> None:
    hidden = "40 30 254:0 /etc /srv/app rw - ext4 /dev/vda rw"
    assert led({"/srv/app": False}, hidden)
    assert led({"/srv/app": False}, hidden, "41 40 254:9 / /srv/app rw - ext4 /dev/vde rw") == {}
    # In whichever order they are told, as kernels differ in it.
    assert led({"/srv/app": False}, "41 40 254:9 / /srv/app rw - ext4 /dev/vde rw", hidden) == {}


def test_the_layers_of_an_overlay_are_its_files(tmp_path: Path) -> None:
    (tmp_path / "upper" / "sub").mkdir(parents=True)
    shown = (
        f"40 30 0:70 / /srv/shown rw - overlay overlay rw,lowerdir=/etc:/nowhere,upperdir={tmp_path}/upper,workdir=/w"
    )
    assert led({"/srv/shown/ssh": True}, shown)["/srv/shown/ssh"].startswith("/etc/ssh, which")
    # The other way round: what the host has as its /etc is an overlay, of which a layer is mounted.
    root = f"40 27 0:70 / /etc rw - overlay overlay rw,lowerdir=/nowhere,upperdir={tmp_path}/upper,workdir=/w"
    assert led({f"{tmp_path}/upper": False}, root)[f"{tmp_path}/upper"].startswith("/etc, which")
    # A host within a host: its layers are outside of it.
    assert led({"/srv/app": False}, root.replace(str(tmp_path), "/nowhere")) == {}


def test_a_volume_is_looked_at_for_what_is_mounted_in_it(tmp_path: Path) -> None:
    told = tmp_path / "mountinfo"
    data = "/var/lib/docker/volumes/x/_data"
    told.write_text(ORDINARY + f"40 29 254:0 /etc {data}/in rw - ext4 /dev/vda rw\n", encoding="utf-8")
    table = mount_table(told)
    assert str(led_below(data, table=table)).startswith(f"/etc (mounted at {data}/in), which hands what belongs to")
    assert led_below("/var/lib/docker/volumes/y/_data", table=table) is None


def test_what_obeys_is_told_first_and_confirmed_by_nobody(tmp_path: Path) -> None:
    told = tmp_path / "mountinfo"
    told.write_text(
        ORDINARY + "40 30 254:0 /etc /srv/app/a rw - ext4 /dev/vda rw\n41 30 0:25 / /srv/app/r rw - tmpfs tmpfs rw\n",
        encoding="utf-8",
    )
    found = leading({"/srv/app": True}, table=mount_table(told))["/srv/app"]
    assert (found.end, found.inner, found.confirmable) == ("/run", "/srv/app/r", False)


@pytest.mark.parametrize(
    "text", [None, "", "nonsense\n", "27 1 254:0 /\n", "27 1 254:0 / /mnt rw - ext4 /dev/vda rw\n"]
)
def test_a_host_that_does_not_tell_its_mounts_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "mountinfo").write_text(text, encoding="utf-8")
    with pytest.raises(Fault, match="nobody knows what volumes lead to"):
        mount_table(tmp_path / "mountinfo")


def test_this_host_tells_its_mounts() -> None:
    assert mount_table().carrying("/proc/self").point == "/proc"
