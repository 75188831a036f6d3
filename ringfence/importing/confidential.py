"""What of a project is secret: by its name, by its shape, or because a secret is in it. It goes into a vault."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from ringfence.importing.files import Project
from ringfence.importing.forms import pairs
from ringfence.importing.interpolate import Filled
from ringfence.importing.mentions import line

_NAME = re.compile(
    r"PASS(?!THROUGH|IVE)|PWD?$|SECRET|TOKEN|CRED(?:ENTIAL|S?$)|SALT$|(?:^|_)PSK$|COMMUNITY$|SEED$|(?:^|_)KEY_\w|"
    r"JWT|PIN$|COOKIE_?(?:KEY|HASH)|AUTH_?(?:KEY|CODE)|API_?KEY|"
    r"(?:PRIVATE|PRESHARED|ACCESS|ENCRYPTION|MASTER|SIGNING|LICENSE|APP|ADMIN|DB|SESSION)_?KEY|(?:^|_)KEY(?:_BASE)?$|"
    r"KEY_?BASE|WEBHOOK|HTPASSWD|MASTER_?AUTH$|PLEX_CLAIM$|(?:^|_)T?OTP(?:_(?:SEED|CODE))?$",
    re.IGNORECASE,
)
_NO_NAME = re.compile(
    r"(?:^|_)KEY_(?:TYPE|SIZE|BITS|USAGE)$|"
    r"_(?:FILE|PATH|DIR|EXPIR\w*|TTL|LENGTH|LIFETIME|ALGORITHM|ENABLED?|POLICY|URL|MIN|MAX|TIMEOUT|AGE|SECONDS|MINUTES|"
    r"HOURS|DAYS|INTERVAL|ROUNDS|LIMIT)$|^MAX_TOKENS?$|^(?:OLD)?PWD$",
    re.IGNORECASE,
)
# Names of what people type: whatever stands there is one, also what looks like a path.
_TYPED = re.compile(r"(?:PASS|PASSWORD|PASSWD|PASSPHRASE|PWD?)$", re.IGNORECASE)
_SWITCH = re.compile(r"(?:true|false|yes|no|on|off|none|null|optional|required|)", re.IGNORECASE)
# A secret is looked for inside of other texts where it is no word that may stand there by chance.
_TELLING = re.compile(r"(?=.*[A-Za-z])(?=.*[^A-Za-z]).{8,}|.{16,}", re.DOTALL)
# A shell's variable in the place of a secret tells none; its default would.
_VARIABLE = re.compile(r"\$+(?:[A-Z_][A-Z0-9_]*|\{\w+(?::?[-?+](?:\$+\{?\w*\}?)?)?\}?|\(.*)|\{\{.*", re.DOTALL)

_BREAK = r"\s\0"  # between the words of a command (`mentions.line`) or of a text
_BEGIN = rf"(?:^|[{_BREAK}\"'(,=])"
_WORD = rf"(?P<quote>[\"']?)(?P<secret>[^{_BREAK}\"';]+)"
_NOTIFIERS = (
    "bark discord googlechat gotify ifttt join matrix mailto mattermost msteams ntfy opsgenie pagerduty pushbullet "
    "pushover pover rocket signal slack teams telegram tgram twilio zulip"
)
_WEBHOOKS = (
    r"hooks\.slack\.com/(?:services|workflows)/", r"discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/",
    r"[\w.-]*\.?office(?:365)?\.com/webhook\w*/", r"api\.telegram\.org/bot", r"chat\.googleapis\.com/v1/spaces/",
    r"hc-ping\.com/", r"maker\.ifttt\.com/trigger/", r"[^\s/]+/api/(?:v[0-9]+/)?webhooks?/",
)  # fmt: skip
# Where a secret stands within a text, as the group of that name. What has a `key` is one if the key's name says so.
_PLACES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?P<secret>-----BEGIN [A-Z ]*PRIVATE KEY-----.*)",
        r"(?<![a-zA-Z0-9+.-])[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:(?P<secret>[^/\s@\0]+)@",
        # No user has a name like this one.
        r"(?<![a-zA-Z0-9+.-])[a-zA-Z][a-zA-Z0-9+.-]*://"
        r"(?P<secret>(?=[^/\s:@\0]*[0-9])(?=[^/\s:@\0]*[A-Za-z])[^/\s:@\0]{16,})@",
        rf"(?<![\w+.-])(?:{'|'.join(_NOTIFIERS.split())})s?://(?P<secret>[^\s\0\"'|]+)",
        rf"https?://(?:{'|'.join(_WEBHOOKS)})(?P<secret>[^\s\0\"']+)",
        rf"{_BEGIN}[^{_BREAK}:@/\"']{{1,64}}:(?P<secret>[^{_BREAK}@]{{1,256}})@(?:tcp|udp|unix)\(",
        r"(?P<secret>\$(?:2[abxy]|argon2\w*|apr1|y|[156])\$[./A-Za-z0-9$=,+-]{6,})",
        r":(?P<secret>\{S?SHA\}[A-Za-z0-9+/=]{8,})",
        r"(?<![\w-])(?P<secret>(?:ghp_|gho_|ghs_|github_pat_|glpat-|sk-|xox[abp]-|AKIA|tskey-|eyJ[\w-]+\.)"
        r"(?=[\w.-]*[0-9])[\w.-]{12,})",
        r"^(?P<secret>(?:ghp_|gho_|glpat-|sk-|xox[abp]-|AKIA|tskey-|eyJ[\w-]+\.).{4,}|claim-[\w-]{8,})",
        r"^(?P<secret>[0-9a-fA-F]{32,}|(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/_-]{36,}={0,2})$",
        r"\b(?i:basic|bearer)[ \0]+(?P<secret>(?=\S*(?:[0-9=]|[a-z][A-Z]))[A-Za-z0-9+/=._~-]{6,})",
        rf"(?<![\w.-])-{{0,2}}(?P<key>[A-Za-z][\w.-]*)[\"']?[ \t]*=[ \t]*(?P<quote>[\"']?)"
        rf"(?P<secret>(?:\$\{{[^{{}}]*\}}|[^{_BREAK}\"';&,}}])+)",
        r"(?<![\w.-])(?P<key>[A-Za-z][\w.-]*)[\"']\s*:\s*(?P<quote>[\"']?)(?P<secret>[^\s\0\"',}]+)",
        rf"{_BEGIN}--?(?P<key>[A-Za-z][\w.-]+)[{_BREAK}]+(?!-){_WORD}",
        # Names and passwords, but not users and groups by number.
        rf"{_BEGIN}(?:-[A-Za-z]{{0,4}}u|--user|--proxy-user|--auth|--basic-auth)[{_BREAK}=]*[\"']?"
        rf"(?![0-9]+:[0-9]+(?:[{_BREAK}\"']|$))[^{_BREAK}:\"'/]{{1,64}}:(?P<secret>[^{_BREAK}\"'/][^{_BREAK}\"']*)",
        rf"\bredis-cli\b[^;|&]*?[{_BREAK}]-a[{_BREAK}]*{_WORD}",
        rf"\b(?:mysql|mariadb)[\w-]*\b[^;|&]*?[{_BREAK}]-p{_WORD}",
        rf"\b(?:mongo(?:sh|dump|export|import|restore)?|sshpass|mcrcon)\b[^;|&]*?[{_BREAK}]-p[{_BREAK}]*{_WORD}",
        r"\$\{(?P<key>\w+):?-(?P<secret>[^${}][^{}]*)\}",
    )
)
# In a file, not in what is told to people: there, "secrets.db_password: it …" is no secret.
_LINES = (
    re.compile(r"(?:^|\n)[ \t-]*(?P<key>[A-Za-z][\w.-]*):[ \t]+(?P<quote>[\"']?)(?P<secret>[^\s\"'][^\n\"']*)"),
    re.compile(r"(?:^|\n)[ \t]*(?P<key>requirepass|masterauth)[ \t]+(?P<quote>[\"']?)(?P<secret>[^\s\"']+)"),
)
_TOLD = (
    re.compile(r"(?<![\w.-])(?P<key>[A-Za-z][\w-]*): (?=(?P<secret>(?=[^\s,]*[^A-Za-z\s,.;:'][^\s,])[^\s,]{4,}))"),
)  # fmt: skip


def _plain(name: str) -> str:
    """Return the name of a variable, an option or a label as a variable's: ``api_Key`` of ``a.b.apiKey``."""
    name = next((part for part in reversed(re.split(r"[./]", name)) if re.search(r"[A-Za-z]", part)), name)
    return re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_")


def secret_name(name: str) -> bool:
    """Whether a variable, an option or a label of this name holds a secret."""
    plain = _plain(name)
    return bool(_NAME.search(plain)) and not _NO_NAME.search(plain)


def is_secret(name: str, value: str) -> bool:
    """Whether the value of a variable is one, or has one in it."""
    if _SWITCH.fullmatch(value):
        return False
    return _by_name(name, value) or (not _path(value) and any(_spans(value, variables=True)))


def _by_name(name: str, value: str) -> bool:
    """Whether a value is a secret because of what it is the value of."""
    plain = _plain(name)
    if _SWITCH.fullmatch(value):
        return False
    if re.search(r"WEBHOOK\w*_URL$", plain, re.IGNORECASE):
        return bool(re.search(r"://[^/\s]+/\S{8,}", value))  # the others say where they are sent to
    if re.search(r"(?:^|_|BASIC)AUTH$", plain, re.IGNORECASE):
        return bool(re.fullmatch(r"[^\s:/]+:[^\s/]+", value))
    if not secret_name(name):
        return False
    # FILE__PASSWORD names a file with linuxserver's images, as PASSWORD_FILE does with others.
    return not _path(value) or bool(
        _TYPED.search(plain) and not value.startswith("/run/secrets/") and plain[:5] != "FILE_"
    )


def _path(value: str) -> bool:
    return bool(re.fullmatch(r"(?:/[\w.-]+)+/?", value))


def _spans(
    text: str, more: Sequence[re.Pattern[str]] = _LINES, *, variables: bool = False
) -> Iterator[tuple[int, int]]:
    """Return where secrets stand in a text; ``$NAME`` is one where nothing fills in `variables` any more."""
    for pattern in (*_PLACES, *more):
        for found in pattern.finditer(text):
            key, secret = found.groupdict().get("key"), found["secret"]
            if (variables or not _VARIABLE.fullmatch(secret)) and (key is None or _by_name(key, secret)):
                yield found.span("secret")


def masked(text: str) -> str:
    """Return a text for people without what looks like a secret in it.

    Passwords of URLs, values of options and keys with telling names, defaults of variables with such names, tokens.
    """
    shown, at = "", 0
    for start, end in sorted(_spans(text, _TOLD)):
        if start >= at:
            shown += text[at:start] + "…"
        at = max(at, end)
    return shown + text[at:]


def _masked_raw(raw: str) -> str:
    """Return the raw text of a secret with its variables and without what stands between them."""
    parts = re.split(r"(\$\{[^{}]*\}|\$\w+)", raw)
    return "".join(
        re.sub(r"(:?[-+]).+(?=\})", r"\1…", part) if index % 2 else ("…" if part.strip() else part)
        for index, part in enumerate(parts)
    )


class Vault:
    """Gathers secrets, each under a name of its own, and gives references for them."""

    def __init__(self, project: Project, stack: str) -> None:
        self.values: dict[str, str] = {}
        self._stack = stack
        given = [*project.variables.items(), *_variables(project)]
        self._known = {str(value) for name, value in given if is_secret(name, str(value))}
        for text in (*(str(value) for _, value in given), *_texts(project)):
            for part in (text[start:end] for start, end in _spans(text)):
                self._known |= {part, unquote(part)}
        self._names = _hosts(project)
        self._raws = {
            value.raw: _masked_raw(value.raw)
            for name, value in given
            if isinstance(value, Filled) and value.unset and secret_name(name)
        }

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
        return (secret for secret in self._known if _TELLING.fullmatch(secret) and secret not in self._names)

    def kept(self, value: Any, path: str) -> Any:
        """Return a tree in which references stand for the texts with secrets in them."""
        if isinstance(value, Reference):
            return value
        if isinstance(value, str):
            return self.reference(path, value) if self.holds(value) or any(_spans(value)) else value
        if isinstance(value, Mapping):
            return {key: self._kept(str(key), one, f"{path}_{key}") for key, one in value.items()}
        if isinstance(value, list | tuple):
            told = _secret_words(value) if all(isinstance(one, str) for one in value) else set()
            return [
                self.reference(f"{path}_{index}", one) if index in told else self.kept(one, f"{path}_{index}")
                for index, one in enumerate(value)
            ]
        return value

    def _kept(self, key: str, value: Any, path: str) -> Any:
        """As `kept`, for what has a name: a label, an option of a log driver."""
        if isinstance(value, str) and not isinstance(value, Reference) and _by_name(key, value):
            return self.reference(path, value)
        return self.kept(value, path)

    def told(self, text: str) -> str:
        """Return a text for people without the secrets in it."""
        for raw in sorted(self._raws, key=len, reverse=True):
            text = text.replace(raw, self._raws[raw])
        for secret in sorted(self._telling(), key=len, reverse=True):
            text = text.replace(secret, "…")
        return masked(text)


class Reference(str):
    """A template that names a vaulted variable."""

    __slots__ = ()


def _secret_words(words: Sequence[str]) -> set[int]:
    """Return which words of a command have a secret in them."""
    text = line(words)
    return {text.count("\0", 0, start) for start, _ in _spans(text)}


def shown_words(words: Sequence[str]) -> str:
    """Return a command for people, without the secrets in it."""
    told = _secret_words(words)
    return " ".join("…" if index in told else word for index, word in enumerate(words))


_HOOKS = ("post_start", "pre_start", "pre_stop")


def _hooks(service: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what compose ran beside a service."""
    for key in _HOOKS:
        yield from (one for one in service.get(key) or [] if isinstance(one, Mapping))


def _variables(project: Project) -> Iterator[tuple[str, str]]:
    for service in project.services.values():
        given = [service.get("environment"), *(pairs(one.get("environment")) for one in _hooks(service))]
        for name, value in (one for variables in given for one in (variables or {}).items()):
            yield name, value if isinstance(value, str) else str(value)


def _commands(project: Project) -> Iterator[list[Any]]:
    for service in project.services.values():
        for words in (
            service.get("entrypoint"),
            service.get("command"),
            (service.get("healthcheck") or {}).get("test"),
            *(one.get("command") for one in _hooks(service)),
        ):
            if words:
                yield words if isinstance(words, list) else [words]


def _texts(project: Project) -> Iterator[str]:
    """Everything besides the environment in which a secret may stand."""
    for words in _commands(project):
        yield line([str(word) for word in words])
    for service in project.services.values():
        for name, value in (service.get("labels") or {}).items():
            yield f"{name}={value}"
    for config in project.sections["configs"].values():
        if (config or {}).get("content"):
            yield str(config["content"])


def _hosts(project: Project) -> set[str]:
    """Names that stand in many texts by right, also where one is somebody's password."""
    found = {project.name, *project.services}
    for service in project.services.values():
        found |= {str(service[key]) for key in ("container_name", "hostname", "image") if service.get(key)}
    return found
