"""Who reaches what: each promise of `access` by real requests, the allowed and the denied one side by side."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.live.labs import Lab, waited_for
from tests.live.proxy.client import Session, ask
from tests.live.proxy.conftest import signed_in

SITES = ("cloud", "media", "vault")


@pytest.mark.parametrize("label", SITES)
def test_who_has_not_signed_in_is_sent_to_the_portal(nobody: Session, label: str) -> None:
    answer = nobody.ask(label, "/some/page?x=1")
    assert answer.status == 302, answer
    target = urlsplit(answer.location)
    assert (target.scheme, target.hostname) == ("https", nobody.portal)
    assert parse_qs(target.query)["rd"] == [f"https://{nobody.site(label)}/some/page?x=1"]
    assert not answer.by_application


@pytest.mark.parametrize("label", SITES)
def test_who_has_signed_in_with_both_factors_is_let_in_by_name(anna: Session, label: str) -> None:
    answer = anna.ask(label, "/headers")
    assert answer.status == 200, answer
    assert answer.by_application
    assert answer.seen["remote-user"] == "anna"
    assert answer.seen["remote-groups"] == "family"
    assert answer.seen["remote-email"] == "anna@lab.home"


def test_one_factor_is_not_two(lab: Lab) -> None:
    guest = Session(lab, "anna")
    assert guest.ask("media").by_application
    answer = guest.ask("cloud")
    assert (answer.status, urlsplit(answer.location).hostname) == (302, guest.portal)


def test_a_group_that_may_not_is_refused(lab: Lab) -> None:
    guest = Session(lab, "guest")
    answer = guest.ask("media")
    assert (answer.status, answer.by_application) == (403, False)
    assert "<html" in answer.body.lower()  # a page for people


def test_a_path_for_admins_from_another_place_is_refused_here_to_admins_too(owner: Session, anna: Session) -> None:
    for session in (owner, anna):
        for path in ("/admin", "/admin/", "/admin/users"):
            answer = session.ask("vault", path)
            assert (answer.status, answer.by_application) == (403, False), (path, answer)
    assert owner.ask("vault", "/administrator").by_application


def test_the_path_for_admins_from_its_own_place(lab: Lab) -> None:
    """The same path, once this machine's network is the place."""
    services = lab.variables()["lab_services"]
    vault = services["vaultwarden"]
    access = {**vault["access"], "paths": {"/admin/*": {"groups": ["admins"], "from": ["lan"]}}}
    lab.declare(lab_services={**services, "vaultwarden": {**vault, "access": access}})
    try:
        lab.pyinfra()
        assert signed_in(lab, "owner").ask("vault", "/admin/users").by_application
        assert signed_in(lab, "anna").ask("vault", "/admin/users").status == 403
    finally:
        lab.undeclare()
        lab.pyinfra()


@pytest.mark.parametrize(
    ("label", "path"),
    [("cloud", "/status.php"), ("cloud", "/remote.php/dav/x"), ("vault", "/api/x"), ("vault", "/alive")],
)
def test_paths_for_programs_need_no_sign_in(nobody: Session, label: str, path: str) -> None:
    answer = nobody.ask(label, path)
    assert answer.by_application, answer


def test_a_site_without_access_is_closed(lab: Lab, owner: Session) -> None:
    services = lab.variables()["lab_services"]
    closed = {key: value for key, value in services["jellyfin"].items() if key != "access"}
    lab.declare(lab_services={**services, "jellyfin": closed})
    try:
        lab.pyinfra()
        answer = owner.ask("media")  # it asks nobody who they are
        assert (answer.status, answer.by_application) == (403, False)
    finally:
        lab.undeclare()
        lab.pyinfra()


def test_the_application_sees_the_real_address_and_nothing_that_a_client_says(lab: Lab, anna: Session) -> None:
    mine = lab.controller()
    lies = {"X-Forwarded-For": "10.99.0.7", "X-Real-IP": "10.99.0.7", "Forwarded": "for=10.99.0.7"}
    for headers in ({}, lies):
        seen = anna.ask("cloud", "/headers", headers=headers).seen
        assert (seen["x-forwarded-for"], seen["x-real-ip"]) == (mine, mine)
        assert "10.99.0.7" not in json.dumps(seen)
        assert seen["x-forwarded-proto"] == "https"
        assert seen["x-forwarded-host"] == anna.site("cloud")


# -- hours


def around(now: datetime, before: int, after: int) -> dict[str, Any]:
    """Hours from and to so many minutes from now, of the days that they touch."""
    start, end = now + timedelta(minutes=before), now + timedelta(minutes=after)
    return {"from": f"{start:%H:%M}", "to": f"{end:%H:%M}", "days": [f"{start:%a}".lower()], "zone": "UTC"}


def test_hours_open_and_close_a_site(lab: Lab, anna: Session) -> None:
    assert anna.ask("media").by_application
    now = datetime.now(UTC)
    try:
        lab.declare(lab_hours={"evening": around(now, 120, 180)})
        lab.pyinfra()
        answer = anna.ask("media")
        assert (answer.status, answer.by_application) == (403, False)
        assert "hour" in answer.body.lower() or "time" in answer.body.lower()
        assert anna.ask("cloud").by_application  # hours are of one site
        lab.declare(lab_hours={"evening": around(now, -60, 60)})
        lab.pyinfra()
        assert anna.ask("media").by_application
    finally:
        lab.undeclare()
        lab.pyinfra()


def test_hours_that_end_close_the_site_without_a_run(lab: Lab, anna: Session) -> None:
    now = datetime.now(UTC)
    ends = 2 if now.second < 30 else 3
    try:
        lab.declare(lab_hours={"evening": around(now, -60, ends)})
        lab.pyinfra()
        assert anna.ask("media").by_application
        assert waited_for(lambda: not anna.ask("media").by_application, 60.0 * ends, 1)
        assert anna.ask("media").status == 403
    finally:
        lab.undeclare()
        lab.pyinfra()


# -- what is around


def test_plain_http_leads_to_https_and_shows_nothing(lab: Lab, nobody: Session) -> None:
    connection = http.client.HTTPConnection(lab.address(), 80, timeout=10)
    connection.request("GET", "/x?y=1", headers={"Host": nobody.site("cloud")})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Location")) == (308, f"https://{nobody.site('cloud')}/x?y=1")
    connection.close()


def test_by_ipv6_it_is_the_same(lab: Lab, nobody: Session, anna: Session) -> None:
    address = next(a for a in lab.variables()["lab_hosts"]["atlas"]["addresses"] if ":" in a)
    for session, status in ((nobody, 302), (anna, 200)):
        answer = ask(lab, session.site("cloud"), "/", cookie=session.cookie, address=address)
        assert answer.status == status, answer


def test_an_unknown_name_gets_no_certificate(lab: Lab) -> None:
    answer = ask(lab, "unknown.example.org", sni="unknown.example.org")
    assert answer.status in (0, 421), answer
    assert not answer.by_application


def test_verify_proves_it_and_lists_what_needs_no_sign_in(lab: Lab) -> None:
    run = lab.verify()
    assert run.changed == [], run.text
    assert "/remote.php/*" in run.text
    lab.must_be_converged()
    assert lab.ansible().changed == []
