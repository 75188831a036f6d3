"""Who may reach what, from where and when: the models of sites, access, people, devices and hours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, model_validator

from ringfence.model.base import Declared, Egress, Reload, reload_of
from ringfence.model.values import (
    AnyAddress,
    DnsProvider,
    HostLabel,
    Image,
    Names,
    PortNumber,
    Size,
    SmtpAddress,
    Text,
    UrlPath,
    UserId,
    WholeNumber,
    as_mapping,
)
from ringfence.model.vpn import PublicKey, Tunnel

# The services that roles of the same names run.
PROXY, PORTAL = "caddy", "authelia"
# `groups: [everyone]`: whoever can sign in.
EVERYONE = "everyone"
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
Factor = Literal["none", "one", "two"]
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")
_HASH = re.compile(r"\$argon2id\$v=19\$m=[0-9]+,t=[0-9]+,p=[0-9]+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def _clock(value: object) -> object:
    # YAML 1.1 reads 17:00 without quotes as the number 1020.
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"'{value}' is not a time of day (quote it: \"17:00\")")
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise ValueError(f'\'{value}\' is not a time of day (write it as "17:00", up to "24:00")')
    return value


def _zone(value: object) -> object:
    try:
        ZoneInfo(str(value))
    except (KeyError, OSError, ValueError):
        raise ValueError(
            f"'{value}' is not a time zone (write it as Europe/Berlin; see timedatectl list-timezones)"
        ) from None
    return value


def _hash(value: object) -> object:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError("the password is not an argon2id hash (make one with python -m ringfence.password)")
    return value


def _email(value: object) -> object:
    if not isinstance(value, str) or not _EMAIL.fullmatch(value):
        raise ValueError(f"'{value}' is not an e-mail address (write it as owner@lab.home)")
    return value


Clock = Annotated[str, BeforeValidator(_clock)]
Zone = Annotated[str, BeforeValidator(_zone)]


class Hours(Declared):
    """A part of the week. With ``to`` before ``from`` it lasts over midnight; the day is the one that it begins on."""

    days: tuple[Day, ...] = Field(
        DAYS, min_length=1, description="days that it begins on: mon, tue, wed, thu, fri, sat, sun"
    )
    start: Clock = Field(alias="from", description='time of day that it begins, such as "17:00"')
    end: Clock = Field(alias="to", description="time of day that it ends; at or before from: on the next day")
    zone: Zone = Field(description="time zone, such as Europe/Berlin; summer time is followed")


class Rule(Declared):
    """Who may use a part of a site. What a path's rule does not say is as in the site's own."""

    people: Names = Field((), description="people who may, by their names in lab_people")
    groups: Names = Field((), description="groups that may, or everyone: whoever can sign in")
    factor: Factor = Field("two", description="none (no sign-in), one (password) or two (and a second factor)")
    sources: Names = Field((), alias="from", description="places or devices; by default all that reach the proxy")
    hours: Names = Field((), description="when, by names in lab_hours; by default always")


class Access(Rule):
    """Who may use a site."""

    bypass: tuple[UrlPath, ...] = Field(
        (), description='paths without sign-in, for programs that cannot: "/alive", or "/api/*" for all below'
    )
    paths: dict[UrlPath, Rule] = Field({}, description='rules of their own for paths: "/admin/*": {groups: [admins]}')


class Site(Declared):
    """The name under lab_domain by which the proxy serves a service."""

    name: HostLabel = Field(description="its name: cloud stands for cloud.<lab_domain>")
    port: PortNumber | None = Field(None, description="port of the service that the proxy calls; by default its own")
    tls: bool = Field(False, description="whether the service answers TLS there, with its certificate of the lab's CA")
    max_body: Size = Field("", description="largest request, such as 10GB")


class Oidc(Declared):
    """A service that signs people in itself, by asking the portal (OpenID Connect)."""

    secret: Text = Field(
        repr=False, min_length=16, description="the secret that the service has as well; from the vault"
    )
    callbacks: tuple[str, ...] = Field(min_length=1, description="paths of the service that people come back to")
    people: Names = Field((), description="people who may; by default those of access")
    groups: Names = Field((), description="groups that may; by default those of access")
    factor: Literal["one", "two"] = Field("two", description="one or two")
    sources: Names = Field((), alias="from", description="places or devices; by default those of access")
    scopes: tuple[str, ...] = Field(("openid", "profile", "email", "groups"), description="what it may learn")
    auth_method: Literal["client_secret_basic", "client_secret_post"] = Field(
        "client_secret_basic", description="how it sends its secret"
    )


class Tls(Declared):
    """A certificate of the lab's CA in /run/tls: current/cert.pem, current/key.pem and ca.pem, renewed on the host."""

    owner: UserId = Field("0", description="user id in the container that may read the key")
    usage: tuple[Literal["server", "client"], ...] = Field(
        ("server",), min_length=1, description="server, client or both"
    )
    reload: Annotated[Reload | None, BeforeValidator(reload_of)] = Field(
        None,
        description="command, or {signal: SIGHUP}, by which it reads a new one; by default its reload, or a restart",
    )
    clients: tuple[HostLabel, ...] = Field(
        (), description="machines outside of Docker that get a client certificate: a name for each, made on the host"
    )


def tls_of(value: Any) -> Any:
    """Take ``tls: true`` for a certificate with the defaults, and false for none."""
    return ({} if value else None) if isinstance(value, bool) else value


def site_of(value: Any) -> Any:
    """Take ``site: cloud`` for ``{name: cloud}``."""
    return as_mapping(value, "name")


class Person(Declared):
    """Somebody who can sign in."""

    name: str = Field("", description="the name that is shown; by default the one that it is declared by")
    email: Annotated[str, BeforeValidator(_email)] = Field(description="e-mail address")
    groups: Names = Field((), description="groups that it belongs to")
    password: Annotated[str, BeforeValidator(_hash)] = Field(
        repr=False,
        description="argon2id hash of the first password (python -m ringfence.password); changed in the portal",
    )
    disabled: bool = Field(False, description="whether it can sign in no longer")


class Device(Declared):
    """A machine of a person: a place of its own, by its fixed addresses and by the one that it has in the VPN."""

    owner: str = Field("", description="whose it is, one of lab_people")
    addresses: tuple[AnyAddress, ...] = Field(
        (), description="its fixed addresses outside own WireGuard, such as those in a tailnet"
    )
    key: PublicKey = Field("", description="its public key, as its app shows it: it is in the VPN then")
    tunnel: Tunnel = Field("split", description="split: what is for the lab goes through the VPN; full: everything")


class Acme(Declared):
    """A public certificate authority."""

    email: Annotated[str, BeforeValidator(_email)] = Field(description="where it writes to before a certificate ends")
    ca: str = Field("", description="URL of its directory; by default Let's Encrypt")
    root: str = Field("", description="root certificate in PEM of a CA that is not among the public ones")
    dns: DnsProvider = Field("", description="DNS provider for DNS-01; its module must be in the image")
    token: Text = Field("", repr=False, description="the DNS provider's token, from the vault")


class _RoleService(Declared):
    host: str = Field(description="the machine that runs it, one of lab_hosts")
    image: Image = Field(description="container image with a version or a digest")
    segments: tuple[str, ...] = Field(min_length=1, description="segments that it is connected to")


class Proxy(_RoleService):
    """The service `caddy`: the only one that is published, in front of every site."""

    sources: Names = Field(alias="from", min_length=1, description="places that reach it, or anywhere")
    certificates: Literal["lab", "acme"] = Field("lab", description="lab: of the lab's own CA; acme: of a public one")
    acme: Acme | None = Field(None, description="the public CA")
    max_body: Size = Field("1GB", min_length=1, description="largest request, where a site does not say")


class Ldap(Declared):
    """People in an LDAP directory instead of lab_people."""

    service: str = Field(description="the directory's service in the lab")
    port: PortNumber = Field(6360, description="its port")
    tls: bool = Field(True, description="whether it answers TLS there, with its certificate of the lab's CA")
    implementation: Literal["lldap", "custom"] = Field(
        "lldap", description="lldap, or custom with further keys of Authelia's"
    )
    base_dn: str = Field(description="where it begins, such as DC=lab,DC=home")
    user: str = Field(description="whom the portal signs in as")
    password: Text = Field(repr=False, description="that user's password, from the vault")
    settings: dict[str, Any] = Field({}, description="further keys of authelia_ldap (roles/authelia/README.md)")


class Database(Declared):
    """A Postgres service instead of a file in the portal's volume."""

    service: str = Field(description="the database's service in the lab")
    database: str = Field("authelia", description="name of the database")
    username: str = Field("authelia", description="name of the user")
    password: Text = Field(repr=False, description="the user's password, from the vault")


class Smtp(Declared):
    """A mail server instead of a file in the portal's volume."""

    address: SmtpAddress = Field(description="such as submissions://mail.example.org:465")
    username: str = Field("", description="name of the user")
    password: Text = Field("", repr=False, description="the user's password, from the vault")
    sender: str = Field(description="such as Lab <lab@example.org>")


class Session(Declared):
    """How long a sign-in lasts."""

    inactivity: str = Field("15 minutes", description="without a request")
    expiration: str = Field("4 hours", description="at most")


class Regulation(Declared):
    """When a person or an address is banned."""

    max_retries: WholeNumber = Field(3, ge=1, description="failures")
    find_time: str = Field("2 minutes", description="within")
    ban_time: str = Field("15 minutes", description="are banned for")


class Portal(_RoleService):
    """The service `authelia`: where people sign in."""

    site: HostLabel = Field("auth", description="its name under lab_domain")
    sources: Names = Field(
        (), alias="from", description="places or devices that may sign in; by default all that reach the proxy"
    )
    default: str = Field("", description="site that people are sent to who asked for none")
    ldap: Ldap | None = Field(None, description="people in an LDAP directory; by default lab_people")
    database: Database | None = Field(None, description="a Postgres service; by default a file in its volume")
    smtp: Smtp | None = Field(
        None, description="mail server for codes; by default they are written to a file in its volume"
    )
    session: Session = Field(Session.model_validate({}), description="how long a sign-in lasts")
    regulation: Regulation = Field(Regulation.model_validate({}), description="when a person or an address is banned")
    egress: tuple[Egress, ...] = Field((), description="what it may reach outside the lab, such as the mail server")


class Ca(Declared):
    """The lab's own certificate authority (python -m ringfence.pki)."""

    certificate: Text = Field(description="its certificate, PEM")
    key: Text = Field("", repr=False, description="its key, PEM, from the vault; used on the controller, never sent")

    @model_validator(mode="before")
    @classmethod
    def _pem(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for name, kind in (("certificate", "CERTIFICATE"), ("key", "PRIVATE KEY")):
                if given.get(name) and kind not in str(given[name]):
                    raise ValueError(f"the {name} is not PEM (make both with python -m ringfence.pki)")
        return given
