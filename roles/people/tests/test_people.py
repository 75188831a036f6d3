"""What holds on a host after the role `people`, whichever engine applied it."""

from __future__ import annotations

from typing import Any

DIRECTORY = "/srv/ringfence/people"


def test_the_people_belong_to_the_portal_alone(host: Any) -> None:
    directory, file = host.file(DIRECTORY), host.file(f"{DIRECTORY}/users.yml")
    if not host.file("/etc/ringfence/people/declared.json").exists:
        assert not directory.exists  # nobody is declared here
        return
    assert (directory.mode, directory.uid) == (0o700, 9091)
    assert (file.mode, file.uid) == (0o600, 9091)


def test_every_password_is_a_hash(host: Any) -> None:
    file = host.file(f"{DIRECTORY}/users.yml")
    if file.exists:
        lines = [line.strip() for line in file.content_string.splitlines() if "password:" in line]
        assert lines
        assert all("$argon2id$" in line for line in lines)
