"""pyinfra's half of the guard's window: what the new connection proves, and what is tried besides."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.operations import guarded

WINDOW = {"name": "this-run", "seconds": 45, "limit": 300}


class Connector:
    """As much of pyinfra's SSH connector as is used; sshd listens at 2222 of a network behind it."""

    dialled: int = 0  # 0: through a jump host

    def __init__(self, _state: Any, host: Any) -> None:
        self.host = host
        wire: Any = None
        if self.dialled:
            wire = socket.create_connection(("127.0.0.1", self.dialled))
        self.client = SimpleNamespace(
            get_transport=lambda: SimpleNamespace(sock=wire), close=lambda: wire and wire.close()
        )

    def connect(self) -> None:
        if self.host.unreachable:
            raise OSError("no route")

    def run_shell_command(self, command: Any, **_: Any) -> tuple[bool, Any]:
        text = str(command)
        self.host.sent.append((text.split()[1], True))
        if text == "echo $SSH_CONNECTION":
            return True, SimpleNamespace(stdout="192.0.2.1 40000 192.0.2.2 2222")
        return self.host.confirms, SimpleNamespace(stderr="the guard's words")


class Host:
    """A host with an open connection, over which it takes anything back."""

    def __init__(self, ports: list[int]) -> None:
        self.data = SimpleNamespace(get={"guard_ports": ports}.get)
        self.current_op_global_arguments: dict[str, Any] = {}
        self.print_prefix = ""
        self.connector = Connector.__new__(Connector)
        self.unreachable, self.confirms = False, True
        self.sent: list[tuple[str, bool]] = []

    def run_shell_command(self, command: Any, **_: Any) -> tuple[bool, Any]:
        self.sent.append((str(command).split()[1], False))
        return True, None


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(guarded, "SSHConnector", Connector)
    monkeypatch.setattr(guarded.logger, "error", lines.append)
    monkeypatch.setattr(guarded.logger, "warning", lines.append)
    return lines


def confirm(host: Any) -> bool:
    state: Any = None
    return guarded.confirm(state, host, WINDOW)


def test_the_port_that_is_dialled_and_the_one_where_it_arrives_are_proved(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as port, listening() as other:
        monkeypatch.setattr(Connector, "dialled", port)
        host = Host([2222, port, other])
        assert confirm(host)
    assert host.sent == [("$SSH_CONNECTION", True), ("confirm", True)]
    assert said == []


def test_a_port_that_does_not_answer_takes_the_change_back(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as other:
        pass
    with listening() as port:
        monkeypatch.setattr(Connector, "dialled", port)
        host = Host([2222, other])
        assert not confirm(host)
    assert host.sent == [("$SSH_CONNECTION", True), ("restore", False)]
    assert f"port {other} of 127.0.0.1, which must stay open (guard_ports), does not answer" in said[0]
    assert said[1] == "the old state is back"


def test_through_a_jump_host_only_ssh_is_tried(said: list[str]) -> None:
    host = Host([2222, 8443])
    assert confirm(host)
    assert "guard_ports: 8443 cannot be tried" in said[0]


def test_only_whoever_cannot_come_back_is_told_of_a_lock_out(said: list[str]) -> None:
    host = Host([])
    host.unreachable = True
    assert not confirm(host)
    assert said[0].startswith("the change would have locked you out, so it is taken back: no route")
    host = Host([])
    host.confirms = False
    assert not confirm(host)
    assert said[2] == "the change is taken back: the guard's words"
