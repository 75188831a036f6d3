"""What of a project is secret: by its name, by its shape, or because a secret is in it. It goes into a vault."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.importing.files import Project
from ringfence.importing.interpolate import Filled

_NAME = re.compile(
    r"PASS(?!THROUGH|IVE)|PWD$|SECRET|TOKEN|CREDENTIAL|SALT$|JWT|PIN$|COOKIE_?(?:KEY|HASH)|AUTH_?KEY|API_?KEY|"
    r"(?:PRIVATE|PRESHARED|ACCESS|ENCRYPTION|MASTER|SIGNING|LICENSE|APP|ADMIN|DB|SESSION)_?KEY|(?:^|_)KEY(?:_BASE)?$|"
    r"KEY_?BASE|WEBHOOK|HTPASSWD",
    re.IGNORECASE,
)
_NO_NAME = re.compile(r"_(?:FILE|PATH|DIR|EXPIR\w*|TTL|LENGTH|LIFETIME|ALGORITHM|ENABLED?|POLICY|URL)$", re.IGNORECASE)
_SHAPE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:[^/\s@]+@|^[0-9a-fA-F]{32,}$|"
    r"^(?:ghp_|gho_|glpat-|sk-|xox[abp]-|AKIA|tskey-|eyJ[\w-]+\.)|^\$(?:2[aby]|argon2\w*|6|5|apr1)\$|"
    r"^(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/_-]{36,}={0,2}$"
)
_SWITCH = re.compile(r"(?:true|false|yes|no|on|off|none|null|optional|required|)", re.IGNORECASE)
# A secret is looked for inside of other texts where it is no word that may stand there by chance.
_TELLING = re.compile(r"(?=.*[A-Za-z])(?=.*[^A-Za-z]).{8,}|.{16,}", re.DOTALL)


def secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(_NAME.search(name)) and not _NO_NAME.search(name)


def is_secret(name: str, value: str) -> bool:
    """Whether the value of a variable is one."""
    if _SWITCH.fullmatch(value) or (value.startswith("/") and "\n" not in value and _path(value)):
        return False
    return secret_name(name) or bool(_SHAPE.search(value))


def _path(value: str) -> bool:
    return bool(re.fullmatch(r"(?:/[\w.-]+)+/?", value))


class Vault:
    """Gathers secrets, each under a name of its own, and gives references for them."""

    def __init__(self, project: Project, stack: str) -> None:
        self.values: dict[str, str] = {}
        self._stack = stack
        given = [*project.variables.items(), *_variables(project)]
        self._known = {str(value) for name, value in given if is_secret(name, str(value))}

    def reference(self, path: str, value: str) -> str:
        """Keep a secret; return what stands in its place."""
        for name, known in self.values.items():
            if known == str(value):
                return Reference(f"{{{{ {name} }}}}")
        whole = path if path.startswith(f"{self._stack}-") else f"{self._stack}_{path}"
        base = "vault_" + re.sub(r"[^a-z0-9]+", "_", whole.lower()).strip("_")
        name, number = base, 2
        while name in self.values:
            name, number = f"{base}_{number}", number + 1
        self.values[name] = str(value)
        self._known.add(str(value))
        return Reference(f"{{{{ {name} }}}}")

    def holds(self, text: str) -> bool:
        """Whether there is a secret in a text, whole or by the variable that it was made of."""
        if isinstance(text, Filled) and text and any(secret_name(name) for name in text.used):
            return not _SWITCH.fullmatch(text)
        return any(secret in text for secret in self._telling())

    def _telling(self) -> Iterator[str]:
        return (secret for secret in self._known if _TELLING.fullmatch(secret))

    def kept(self, value: Any, path: str) -> Any:
        """Return a tree in which references stand for the texts with secrets in them."""
        if isinstance(value, Reference):
            return value
        if isinstance(value, str):
            return self.reference(path, value) if self.holds(value) or _SHAPE.search(value) else value
        if isinstance(value, Mapping):
            return {key: self.kept(one, f"{path}_{key}") for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.kept(one, f"{path}_{index}") for index, one in enumerate(value)]
        return value

    def told(self, text: str) -> str:
        """Return a text for people without the secrets in it."""
        for secret in sorted(self._telling(), key=len, reverse=True):
            text = text.replace(secret, "…")
        return text


class Reference(str):
    """A template that names a vaulted variable."""

    __slots__ = ()


def _variables(project: Project) -> Iterator[tuple[str, str]]:
    for service in project.services.values():
        for name, value in (service.get("environment") or {}).items():
            yield name, str(value)
