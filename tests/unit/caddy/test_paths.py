"""Rules that differ by path, on the real Caddy: every other way to write a path must end at the stricter one.

`paths`: /public/* and /status are open, all else needs a login. `inner`: /admin/* and /settings need a login, all else
is open. `hook`: /hook/* is for the LAN only, all else for whoever has signed in.
"""

from __future__ import annotations

import pytest

from tests.unit.caddy.client import Answer, request, send, send_h2
from tests.unit.caddy.conftest import ANY, World


def ask(world: World, site: str, path: str, cookie: str = "") -> Answer:
    name = f"{site}.lab.home"
    return send(world.proxy.https, name, request(path, host=name, cookie=cookie))


OPEN = [
    "/public",
    "/public?x=y",
    "/public/",
    "/public/x",
    "/public/x?y=/../admin//;%2e",
    "/public/a%20b",
    "/public/%C3%A4",
    "/status",
    "/status?full",
]


@pytest.mark.parametrize("path", OPEN)
def test_what_is_open_arrives_as_it_was_written(world: World, path: str) -> None:
    assert ask(world, "paths", path).status == 200
    assert [seen.path for seen in world.app.seen] == [path]
    assert not world.auth.seen


AMBIGUOUS = [
    # The bypass is left once the application has resolved the path.
    "/public/../admin", "/public/x/../../admin", "/public/..", "/public/./../admin", "/public/.", "/./public/x",
    "/public/%2e%2e/admin", "/public/%2E%2E/admin", "/public/.%2e/admin", "/public/%2e./admin", "/public/%2e",
    "/public/..%2fadmin", "/public/..%2Fadmin", "/public/%2e%2e%2fadmin", "/public%2f..%2fadmin", "/public/..%5cadmin",
    "/public/..\\admin", "/public\\..\\admin", "/public/\\../admin",
    # As the last, when it decodes twice, or decodes what is no UTF-8 (a dot, a slash in too many bytes).
    "/public/%252e%252e/admin", "/public/%252e%252e%252fadmin", "/public/%25%32%65", "/public/%c0%ae%c0%ae/admin",
    "/public/..%c0%afadmin",
    # Empty parts, which some drop, and some take for the start of a host name.
    "//public/x", "/public//x", "//evil.example/public/", "///public/",
    # Parameters, which servlet containers cut off before they look for the path.
    "/public/..;/admin", "/public;/../admin", "/public/;x/../admin", "/admin;/public/", "/public%3b/x", "/status;a=b",
    # NUL and line ends, at which paths are cut off or headers begin.
    "/public/%00", "/status%00", "/admin%00/public/", "/public/%0d%0aRemote-User:eve", "/public/%09", "/public/%7f",
    # Letters that need no encoding, to be read as another path by those who compare before they decode.
    "/%70ublic/x", "/p%75blic/x", "/%73tatus", "/statu%73", "/public/%7Eeve", "/public/%41",
]  # fmt: skip


@pytest.mark.parametrize("path", AMBIGUOUS)
@pytest.mark.parametrize("site", ["paths", "inner"])
def test_what_can_be_read_in_two_ways_is_not_answered(world: World, site: str, path: str) -> None:
    answer = ask(world, site, path, cookie="alice")
    assert answer.status == 400
    assert "Address not understood" in answer.text
    assert not world.app.seen
    assert not world.auth.seen


NEARLY = [
    # Nearly the open path: the application may take it for another one.
    "/publicx", "/public.", "/public-/x", "/PUBLIC/x", "/Public/", "/status/", "/status/../", "/STATUS",
    "/status.php", "/statusx", "/status%20", "/status&x", "/status,", "/status/x", "/x/public/", "/x/status",
    "/admin?/public/", "/admin?x=/status", "/?/public/", "/admin#/public/", "/status#",
]  # fmt: skip


@pytest.mark.parametrize("path", NEARLY)
def test_what_only_looks_like_the_open_path_needs_a_login(world: World, path: str) -> None:
    assert ask(world, "paths", path).status in (302, 400)
    assert not world.app.seen


INNER = [
    # The closed path as an application might still understand it.
    "/admin", "/admin/", "/admin/x", "/admin?x", "/ADMIN/x", "/Admin", "/aDMIN/", "/settings", "/settings/",
    "/SETTINGS",
    "/settings?x", "/Settings/?x", "/%C7%86/../admin/",
]  # fmt: skip


@pytest.mark.parametrize("path", INNER)
def test_what_may_be_the_closed_path_needs_a_login(world: World, path: str) -> None:
    assert ask(world, "inner", path).status in (302, 400)
    assert not world.app.seen


def test_letters_that_only_other_alphabets_have_do_not_lead_around(world: World) -> None:
    # U+212A, the sign for kelvin, is a k for those who compare without case.
    world.proxy.write(sites=[*world.variables["sites"], {
        "name": "app.lab.home", "upstream": f"127.0.0.1:{world.app.port}",
        "rules": [{"path": "/keys/*", "login": True, **ANY}, {"path": "", "login": False, **ANY}],
    }][1:])  # fmt: skip
    assert world.proxy.reload().returncode == 0
    try:
        assert ask(world, "app", "/keys/x").status == ask(world, "app", "/%E2%84%AAeys/x").status == 302
        assert not world.app.seen
    finally:
        world.proxy.write()
        world.proxy.reload()


def test_the_rest_of_such_a_site_is_open(world: World) -> None:
    for path in ("/", "/x", "/administration", "/x/admin/", "/setting"):
        assert ask(world, "inner", path).status == 200


def test_rules_that_differ_in_more_than_the_login_take_a_path_as_it_is_declared(world: World) -> None:
    # /HOOK/ with a login from anywhere would reach what is for the LAN only.
    assert ask(world, "hook", "/hook/x", cookie="alice").status == 403
    assert ask(world, "hook", "/HOOK/x", cookie="alice").status == 400
    assert ask(world, "hook", "/Hook/x").status == 400
    assert not world.app.seen
    assert ask(world, "hook", "/other", cookie="alice").status == 200


@pytest.mark.parametrize("target", [
    "https://paths.lab.home/admin/", "http://paths.lab.home/admin/", "https://app.lab.home/public/",
    "https://paths.lab.home:443//public/../admin", "https://paths.lab.home/public/../admin", "ftp://paths.lab.home/public/..",
    "https://paths.lab.home", "paths.lab.home/public/", "public/", "*", "?/public/",
])  # fmt: skip
def test_a_target_with_a_host_is_read_as_what_is_served(world: World, target: str) -> None:
    # The rules see one path, and the application another one, if only one of them takes the host off.
    assert ask(world, "paths", target).status in (0, 302, 400, 405, 421)
    assert not world.app.seen


@pytest.mark.parametrize(
    "path", ["/public/../admin", "/public/%2e%2e/admin", "//public/", "/PUBLIC/x", "/public;/x", "public/", "*"]
)
def test_http2_reads_paths_the_same_way(world: World, path: str) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "paths.lab.home"), (":path", path)]
    assert send_h2(world.proxy.https, "paths.lab.home", fields) in (0, 302, 400, 405)
    assert not world.app.seen
