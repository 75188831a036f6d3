"""What a mount hands over: by whatever name, by what contains it, by what lies in it, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.host import mounts
from ringfence.host.mounts import handed_over, leading, people, plain
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
    "/run/dbus/system_bus_socket", "/var/run/dbus", "/run/systemd/private", "/var/snap/lxd/common/lxd/unix.socket",
]  # fmt: skip
WRITTEN = ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/usr/bin", "/bin", "/sbin/init",
           "/lib/modules", "/usr/share/zoneinfo", "/usr/local/lib/app"]  # fmt: skip
ALONE = [
    "/srv", "/srv/app", "/srv/run/docker", "/data", "/mnt/nas", "/media", "/opt/app", "/var/lib/app", "/var/log",
    "/var/www", "/etc/localtime", "/etc/timezone", "/etc/letsencrypt", "/etc/app/app.conf", "/etc/machine-id",
    "/etc/sshx", "/home/alice/docker/app", "/home/alice/Music", "/dev/shm", "/dev/net/tun", "/dev/log", "/run/app",
    "/run/udev", "/varx", "/procs", "/rooted", "/var/lib/dockers", "/run/lock/app", "/srv/docker.sock.d",
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
    assert found[str(chain)].startswith("/etc/ssh, which hands the host's logins to the container")
    # A bind mount has the inode of what is mounted: here a dangerous place is that very directory.
    real = tmp_path / "real"
    real.mkdir()
    monkeypatch.setattr(mounts, "_PLACES", (*mounts._PLACES, (str(real), mounts._SOCKET)))
    monkeypatch.setattr(os.path, "realpath", str)
    (tmp_path / "other").symlink_to(real)
    assert f"{real}, which hands the whole host" in leading({f"{tmp_path}/other": True})[f"{tmp_path}/other"]
