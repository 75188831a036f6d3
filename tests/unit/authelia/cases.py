"""Authelia's configuration as the role makes it, for the tests of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ringfence.role import Role
from tests.programs import ROLES

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "authelia"
CASES = sorted(path.name.removesuffix(".variables.yml") for path in GOLDEN.glob("*.variables.yml"))
ROLE = Role(str(ROLES / "authelia" / "deploy.py"))


def variables(case: str) -> dict[str, Any]:
    """The variables of a reviewed case."""
    return dict(yaml.safe_load((GOLDEN / f"{case}.variables.yml").read_text(encoding="utf-8")))


def desired(given: dict[str, Any]) -> dict[str, Any]:
    """What the role asks of the program `ringfence-stack`."""
    return dict(ROLE.render_json("desired.json.j2", ROLE.variables(given)))


def service(given: dict[str, Any]) -> dict[str, Any]:
    """The one service in it."""
    [project] = desired(given)["projects"]
    [found] = project["services"]
    return dict(found)


def files(given: dict[str, Any]) -> dict[str, str]:
    """The files in /etc/authelia."""
    return dict(service(given)["config"]["/etc/authelia"])


def configuration(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration as YAML has it; where Authelia's template language stands, a text."""
    text = files(given)["configuration.yml"]
    return dict(
        yaml.safe_load(text.replace('{{ secret "/run/secrets/oidc_key" | mindent 10 "|" | msquote }}', "a key"))
    )


def rules(*given: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """The rules of access_control that such variables lead to."""
    made = configuration({"authelia_name": "auth.lab.home", "authelia_rules": list(given), **more})
    return list(made["access_control"]["rules"])
