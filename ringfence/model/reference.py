"""The reference tables of docs/model.md, made from the models. Run: python -m ringfence.model.reference

Everything between the two markers of that page is replaced.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ringfence.model import base, identity, lab, tailnet, vpn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model.md"
BEGIN = "<!-- made by `python -m ringfence.model.reference` from here -->"
END = "<!-- to here -->"

_TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("lab_services: {name: …}", lab.Service),
    ("publish: [{…}]", lab.Publish),
    ("calls: [name | {…}]", lab.Call),
    ("egress: [{…}]", base.Egress),
    ("secrets: {name: value | {…}}", lab.Secret),
    ("volumes: [text | {…}]", lab.Volume),
    ("reload: text | {…}", base.Reload),
    ("lab_segments: {name: …}", lab.Segment),
    ("lab_hosts: {name: …}", lab.Host),
    ("lab_hosts.….services: {name: …}", lab.HostService),
    ("lab_hosts.….vpn: {…}", vpn.HostVpn),
    ("lab_vpn: {…}", vpn.Vpn),
    ("lab_vpn: tailscale | {kind: tailscale, …}", tailnet.Tailnet),
    ("lab_vantages: {name: …}", lab.Vantage),
    ("site: name | {…}", identity.Site),
    ("access: {…}", identity.Access),
    ("oidc: {…}", identity.Oidc),
    ("tls: true | {…}", identity.Tls),
    ("lab_hours: {name: …}", identity.Hours),
    ("lab_people: {name: …}", identity.Person),
    ("lab_devices: {name: …}", identity.Device),
    ("lab_proxy: {…}", identity.Proxy),
    ("lab_proxy.acme: {…}", identity.Acme),
    ("lab_portal: {…}", identity.Portal),
    ("lab_portal.ldap: {…}", identity.Ldap),
    ("lab_portal.database: {…}", identity.Database),
    ("lab_portal.smtp: {…}", identity.Smtp),
    ("session: {…}", identity.Session),
    ("regulation: {…}", identity.Regulation),
    ("lab_ca: {…}", identity.Ca),
)


def tables() -> str:
    """Return one Markdown table per model."""
    parts = []
    for title, model in _TABLES:
        rows = [
            f"| `{info.alias or name}` | {_default(info)} | {_cell(info.description)} |"
            for name, info in _fields(model)
        ]
        parts.append(
            "\n".join([f"### `{title}`", "", "| key | default | what it says |", "| --- | --- | --- |", *rows])
        )
    return "\n\n".join(parts)


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return list(model.model_fields.items())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value: Any = info.default
    if isinstance(value, BaseModel):
        return "as below"
    if value in (None, "", (), {}):
        return "-"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(description: str | None) -> str:
    return (description or "").replace("|", "\\|")


def updated(page: str) -> str:
    """Return the page with its tables renewed; raises ValueError when the markers are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers are missing (put {BEGIN} and {END} around the tables)")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> int:
    """Renew the page. Returns the exit status."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
