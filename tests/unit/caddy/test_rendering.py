"""The Caddyfile that the role renders: reviewed, formatted, and accepted by the real Caddy."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.render import RenderError
from tests.parity.test_templates import render_with_ansible
from tests.unit.caddy.proxy import ROLE, Proxy, caddyfile, issue, program, rendered

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "caddy"
RULE = {"path": "", "login": True, "networks": ["any"], "hours": {}}


def variables() -> dict[str, Any]:
    given = yaml.safe_load((GOLDEN / "variables.yml").read_text(encoding="utf-8"))
    return {name.removeprefix("caddy_"): value for name, value in given.items()}


def site(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "a.lab.home", "upstream": "a:80", "rules": list(rules), **more}


def test_the_caddyfile_is_the_reviewed_one() -> None:
    text = caddyfile(**variables())
    path = GOLDEN / "Caddyfile"
    assert text == path.read_text(encoding="utf-8"), f"it is not {path} any more: read what changed, then replace it"


ACME = {"email": "a@b.c", "ca": "https://ca.home/dir", "ca_root": "PEM\nPEM\n", "dns": "cloudflare"}


@pytest.mark.parametrize("more", [{}, {"certificates": "acme", "acme": ACME, "secrets": {"acme_dns": "x"}}])
def test_both_engines_render_the_same(more: dict[str, Any]) -> None:
    """The labs of tests/parity do not have every kind of rule; this one does."""
    given = {f"caddy_{name}": value for name, value in {**variables(), **more}.items()}
    values = ROLE.variables(given)
    template = ROLE.directory / "templates" / "desired.json.j2"
    assert ROLE.render("desired.json.j2", values) == render_with_ansible(template, values)


def test_it_is_formatted_as_caddy_formats(tmp_path: Path) -> None:
    for case in (variables(), {**variables(), "certificates": "acme", "acme": {"email": "a@b.c", "dns": "x"}}):
        (tmp_path / "Caddyfile").write_text(caddyfile(**case), encoding="utf-8")
        done = subprocess.run([program(), "fmt", "--diff", tmp_path / "Caddyfile"], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("given", [
    variables(),
    {"sites": [site(RULE)]},  # nobody can sign in
    {"portal": {"name": "auth.lab.home", "upstream": "authelia:9091", "networks": []}},  # and it alone
    {**variables(), "certificates": "acme"},
    {**variables(), "certificates": "acme", "acme": {"email": "a@b.c", "ca": "https://ca.home/dir", "ca_root": "PEM"}},
])  # fmt: skip
def test_caddy_accepts_it(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    issue(tmp_path / "tls", ["auth.lab.home"])
    proxy = Proxy(tmp_path, {"sites": [], **given}, 10080, 10443, 10020)
    proxy.write()
    text = proxy.file.read_text(encoding="utf-8").replace("/etc/caddy/acme-root.pem", f"{tmp_path}/tls/ca.pem")
    proxy.file.write_text(text, encoding="utf-8")
    done = proxy.call("validate")
    assert done.returncode == 0, done.stderr


def test_a_dns_provider_that_the_image_lacks_is_refused(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path, {"sites": [site(RULE)], "certificates": "acme", "acme": {"dns": "nowhere"}}, 10080, 10443)
    proxy.write()
    done = proxy.call("validate")
    assert done.returncode != 0
    assert "dns.providers.nowhere" in done.stderr


def test_the_dns_providers_secret_is_a_file() -> None:
    project = rendered(
        sites=[site(RULE)], certificates="acme", acme={"dns": "cloudflare"}, secrets={"acme_dns": "hunter2"}
    )
    text = project["services"][0]["config"]["/etc/caddy"]["Caddyfile"]
    assert "\tacme_dns cloudflare {file./run/secrets/acme_dns}\n" in text
    assert "hunter2" not in str(project)
    assert project["services"][0]["secrets"] == ["acme_dns"]


def test_nothing_declared_is_no_project() -> None:
    desired = ROLE.render_json("desired.json.j2", ROLE.variables({}))
    assert desired == {"owner": "caddy", "secrets": {}, "projects": []}


def test_the_container_gets_no_more_than_it_needs() -> None:
    service = rendered(**variables())["services"][0]
    assert service["capabilities"] == ["NET_BIND_SERVICE"]
    assert service["volumes"] == [{"source": "/srv/ringfence/pki/caddy", "target": "/run/tls", "read_only": True}]
    assert "read_only" not in service  # the program's default, which is yes
    other = rendered(**variables(), user="1000")["services"][0]
    assert other["user"] == "1000"
    assert other["tmpfs"] == [f"{path}:mode=0700,uid=1000" for path in ("/run/caddy", "/config", "/data")]
    acme = rendered(sites=[site(RULE)], certificates="acme")["services"][0]
    assert acme["volumes"] == [{"name": "data", "target": "/data"}]
    both = rendered(sites=[site(RULE, tls=True, tls_name="a.lab.home")], certificates="acme")["services"][0]
    assert [volume["target"] for volume in both["volumes"]] == ["/data", "/run/tls"]


@pytest.mark.parametrize("wrong", [
    site({**RULE, "hours": {"zone": "UTC", "windows": [{"days": ["monday"], "from": "00:00", "to": "24:00"}]}}),
    site(RULE, max_body="10 apples"),
])  # fmt: skip
def test_what_is_no_day_and_no_size_does_not_become_a_rule(wrong: dict[str, Any]) -> None:
    with pytest.raises(RenderError):
        caddyfile(sites=[wrong])


@pytest.mark.parametrize("path", ['/a"b', "/a`b", "/a b", "/{http.request.uri}", "/é", "/a\\b", "/x?y", "/a*b", "/a#b"])
def test_a_path_is_only_ever_text(path: str, tmp_path: Path) -> None:
    """What is no plain path must not become another rule: it is refused."""
    with pytest.raises(RenderError):
        caddyfile(sites=[site({**RULE, "path": path}, RULE)])
