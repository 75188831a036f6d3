"""A proxy, an application and a sign-in for the tests of one worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.caddy import stubs
from tests.unit.caddy.proxy import Proxy, free_ports

ANY = {"networks": ["any"], "hours": {}}
LAN = {"networks": ["192.168.10.0/24"], "hours": {}}


class World:
    """The proxy with what stands behind it. `app.seen` and `auth.seen` are what reached them in this test."""

    def __init__(self, folder: Path) -> None:
        self.app, self.auth = stubs.Stub(stubs.application), stubs.Stub(stubs.sign_in)
        self.small = stubs.Stub(stubs.application)  # may hear of a request that has already been answered by the proxy
        up = f"127.0.0.1:{self.app.port}"
        dead = f"127.0.0.1:{free_ports(1)[0]}"

        def site(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
            return {"name": f"{name}.lab.home", "upstream": up, "rules": list(rules), **more}

        everybody = {"login": False, **ANY}
        person = {"login": True, **ANY}
        self.variables: dict[str, Any] = {
            "portal": {"name": "auth.lab.home", "upstream": f"127.0.0.1:{self.auth.port}", "networks": ["any"]},
            "sites": [
                site("app", person),
                site("other", person),
                site("open", everybody),
                site("closed"),
                site("lan", {"login": True, **LAN}),
                site("nobody", {"login": False, "networks": [], "hours": {}}),
                site("small", everybody, max_body="1KB", upstream=f"127.0.0.1:{self.small.port}"),
                site("dead", everybody, upstream=dead),
                site("paths", {"path": "/public/*", **everybody}, {"path": "/status", **everybody}, person),
                site("inner", {"path": "/admin/*", **person}, {"path": "/settings", **person}, everybody),
                site("hook", {"path": "/hook/*", "login": False, **LAN}, person),
            ],
        }
        self.proxy = Proxy(folder, self.variables)

    def forget(self) -> None:
        self.app.seen.clear()
        self.small.seen.clear()
        self.auth.seen.clear()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("caddy"))
    try:
        world.proxy.start()
        yield world
    finally:
        world.proxy.stop()


@pytest.fixture
def world(running: World) -> World:
    running.forget()
    return running
