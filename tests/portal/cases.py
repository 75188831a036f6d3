"""The table: what is asked of the portal, and what comes back, of the double and of the real program alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LAN, LAN6, VPN, AWAY = "192.168.10.5", "fd00:10::5", "10.99.0.7", "203.0.113.9"
PORTAL = "https://auth.lab.home/?rd="


@dataclass(frozen=True)
class Ask:
    """One question to /api/authz/forward-auth. `who` is "" (nobody), a person, or person+code (two factors)."""

    name: str
    who: str
    host: str
    uri: str
    address: str
    status: int
    location: str | None = None
    user: str | None = None
    method: str = "GET"
    more: Mapping[str, str | None] = field(default_factory=dict)  # further headers; None takes one away
    cookie: str = "{}"  # what becomes of the session's number

    def headers(self, number: str) -> dict[str, str]:
        made: dict[str, str | None] = {
            "Accept": "text/html,*/*;q=0.8",
            "X-Forwarded-Method": self.method,
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": self.host,
            "X-Forwarded-Uri": self.uri,
            "X-Forwarded-For": self.address,
            "Cookie": f"authelia_session={self.cookie.format(number)}" if number else None,
        }
        return {name: value for name, value in (made | dict(self.more)).items() if value is not None}


def to(target: str, method: str = "GET") -> str:
    return f"{PORTAL}{target}&rm={method}"


def at(path: str) -> str:
    return to(f"https%3A%2F%2Fcloud.lab.home{path}")


CLOUD = "cloud.lab.home"
X = "https%3A%2F%2Fcloud.lab.home%2Fx"

ASKS = [
    # Nobody
    Ask("nobody", "", CLOUD, "/x", LAN, 302, to(X)),
    Ask("nobody, with a query", "", CLOUD, "/x?a=1&b=c+d%20e", LAN, 302, to(X + "%3Fa%3D1%26b%3Dc%2Bd%2520e")),
    Ask("nobody, IPv6", "", "media.lab.home", "/", LAN6, 302, to("https%3A%2F%2Fmedia.lab.home%2F")),
    Ask("nobody, from another place", "", CLOUD, "/x", AWAY, 403),
    Ask("nobody, a name that no rule has", "", "nope.lab.home", "/", LAN, 403),
    Ask("nobody, a rule that denies a group", "", "shut.lab.home", "/", LAN, 302, to("https%3A%2F%2Fshut.lab.home%2F")),
    Ask("nobody, a site for everybody", "", "open.lab.home", "/any?x", AWAY, 200),
    # Bypass
    Ask("bypass", "", CLOUD, "/status.php", AWAY, 200),
    Ask("bypass with a query", "", CLOUD, "/status.php?x=1", AWAY, 200),
    Ask("bypass as somebody", "kid", CLOUD, "/status.php", AWAY, 200, user="kid"),
    Ask("bypass + suffix", "", CLOUD, "/status.phpx", LAN, 302, at("%2Fstatus.phpx")),
    Ask("bypass + folder", "", CLOUD, "/status.php/x", LAN, 302, at("%2Fstatus.php%2Fx")),
    Ask("bypass + slash", "", CLOUD, "/status.php/", LAN, 302, at("%2Fstatus.php%2F")),
    Ask("bypass + semicolon", "", CLOUD, "/status.php;x", LAN, 302, at("%2Fstatus.php%3Bx")),
    Ask("bypass, another case", "", CLOUD, "/Status.php", LAN, 302, at("%2FStatus.php")),
    Ask("bypass + newline", "", CLOUD, "/status.php%0a", LAN, 302, at("%2Fstatus.php%250a")),
    Ask("bypass + NUL", "", CLOUD, "/status.php%00", LAN, 302, at("%2Fstatus.php%2500")),
    Ask("bypass + fragment", "", CLOUD, "/status.php#x", LAN, 302, at("%2Fstatus.php%2523x")),
    Ask("bypass in a query", "", CLOUD, "/x?/status.php", LAN, 302, to(X + "%3F%2Fstatus.php")),
    # Rules are matched with the path decoded and cleaned: why the proxy refuses such forms before.
    Ask("bypass, encoded letter", "", CLOUD, "/%73tatus.php", AWAY, 200),
    Ask("bypass, encoded question mark", "", CLOUD, "/status.php%3fx", AWAY, 200),
    Ask("bypass, reached with ..", "", CLOUD, "/x/../status.php", AWAY, 200),
    Ask("bypass, two slashes", "", CLOUD, "//status.php", AWAY, 200),
    Ask("prefix", "", CLOUD, "/remote/dav", LAN, 200),
    Ask("prefix, from another place", "", CLOUD, "/remote/dav", VPN, 302, at("%2Fremote%2Fdav")),
    Ask("prefix, left with ..", "", CLOUD, "/remote/../x", LAN, 302, at("%2Fremote%2F..%2Fx")),
    Ask("prefix, left with %2e%2e", "", CLOUD, "/remote/%2e%2e/x", LAN, 302,
        at("%2Fremote%2F%252e%252e%2Fx")),
    Ask("prefix, left with ..%2f", "", CLOUD, "/remote/..%2fx", LAN, 302,
        at("%2Fremote%2F..%252fx")),
    Ask("prefix, encoded twice", "", CLOUD, "/remote/%252e%252e/x", LAN, 200),
    Ask("prefix, left with ..;", "", CLOUD, "/remote/..;/x", LAN, 200),
    Ask("prefix without its slash", "", CLOUD, "/remote", LAN, 302, at("%2Fremote")),
    # One factor
    Ask("one factor", "kid", CLOUD, "/x", LAN, 200, user="kid"),
    Ask("one factor, VPN", "kid", CLOUD, "/x", VPN, 200, user="kid"),
    Ask("one factor, IPv6", "kid", "media.lab.home", "/", LAN6, 200, user="kid"),
    Ask("one factor, from another place", "kid", CLOUD, "/x", AWAY, 403),
    Ask("named by the rule", "ann", CLOUD, "/x", LAN, 200, user="ann"),
    Ask("wrong group", "guest", CLOUD, "/x", LAN, 403),
    Ask("a rule for everybody", "guest", "media.lab.home", "/", LAN, 200, user="guest"),
    Ask("a name that no rule has", "kid", "nope.lab.home", "/", LAN, 403),
    Ask("a rule that denies", "kid", "shut.lab.home", "/", LAN, 403),
    Ask("no path", "kid", CLOUD, "", LAN, 200, user="kid"),
    Ask("two factors where one is enough", "owner+code", CLOUD, "/x", LAN, 200, user="owner"),
    # Two factors
    Ask("one factor of two", "owner", "grafana.lab.home", "/", LAN, 302, to("https%3A%2F%2Fgrafana.lab.home%2F")),
    Ask("two factors", "owner+code", "grafana.lab.home", "/", LAN, 200, user="owner"),
    Ask("two factors, from another place", "owner+code", "grafana.lab.home", "/", VPN, 403),
    Ask("two factors, wrong group", "kid", "grafana.lab.home", "/", LAN, 403),
    Ask("path of two factors", "owner", CLOUD, "/admin/x", LAN, 302, at("%2Fadmin%2Fx")),
    Ask("path of two factors, with them", "owner+code", CLOUD, "/admin/x", LAN, 200, user="owner"),
    Ask("path of another group", "kid", CLOUD, "/admin/x", LAN, 403),
    Ask("path, another case", "kid", CLOUD, "/ADMIN/x", LAN, 403),
    Ask("path, encoded letter", "kid", CLOUD, "/%61dmin/x", LAN, 403),
    Ask("path, encoded slash", "kid", CLOUD, "/admin%2fx", LAN, 403),
    Ask("path, two slashes", "kid", CLOUD, "//admin//x", LAN, 403),
    Ask("path, reached with ..", "kid", CLOUD, "/x/../admin/x", LAN, 403),
    Ask("path, left with ..", "kid", CLOUD, "/admin/../x", LAN, 200, user="kid"),
    Ask("path, from another place", "owner+code", CLOUD, "/admin/x", VPN, 403),
    # Methods
    Ask("POST", "", CLOUD, "/x", LAN, 303, to(X, "POST"), method="POST"),
    Ask("DELETE", "", CLOUD, "/x", LAN, 303, to(X, "DELETE"), method="DELETE"),
    Ask("OPTIONS", "", CLOUD, "/x", LAN, 302, to(X, "OPTIONS"), method="OPTIONS"),
    Ask("HEAD", "", CLOUD, "/x", LAN, 302, to(X, "HEAD"), method="HEAD"),
    Ask("POST as somebody", "kid", CLOUD, "/x", LAN, 200, user="kid", method="POST"),
    Ask("PROPFIND as somebody", "kid", CLOUD, "/x", LAN, 200, user="kid", method="PROPFIND"),
    Ask("method in small letters", "kid", CLOUD, "/x", LAN, 400, method="get"),
    Ask("method and more", "kid", CLOUD, "/x", LAN, 400, method="GET POST"),
    Ask("no method", "kid", CLOUD, "/x", LAN, 400, more={"X-Forwarded-Method": None}),
    Ask("empty method", "kid", CLOUD, "/x", LAN, 400, method=""),
    Ask("method override", "", CLOUD, "/x", LAN, 303, to(X, "POST"), method="POST",
        more={"X-HTTP-Method-Override": "GET", "X-Original-Method": "GET"}),
    # Programs that cannot follow a page
    Ask("XHR", "", CLOUD, "/x", LAN, 401, to(X), more={"X-Requested-With": "XMLHttpRequest"}),
    Ask("wants JSON", "", CLOUD, "/x", LAN, 401, to(X), more={"Accept": "application/json"}),
    Ask("wants anything", "", CLOUD, "/x", LAN, 302, to(X), more={"Accept": "*/*"}),
    Ask("wants JSON or anything", "", CLOUD, "/x", LAN, 401, to(X), more={"Accept": "application/json, */*"}),
    Ask("says not what it wants", "", CLOUD, "/x", LAN, 401, to(X), more={"Accept": None}),
    # Names
    Ask("another case", "kid", "CLOUD.Lab.Home", "/x", LAN, 200, user="kid"),
    Ask("a port", "kid", "cloud.lab.home:443", "/x", LAN, 200, user="kid"),
    Ask("no port", "kid", "cloud.lab.home:", "/x", LAN, 200, user="kid"),
    Ask("a port that is none", "kid", "cloud.lab.home:x", "/x", LAN, 400),
    Ask("two ports", "kid", "cloud.lab.home:1:2", "/x", LAN, 400),
    Ask("a last dot", "kid", "cloud.lab.home.", "/x", LAN, 400),
    Ask("below another domain", "kid", "evil.test", "/x", LAN, 400),
    Ask("the domain as a beginning", "kid", "cloud.lab.home.evil.test", "/x", LAN, 400),
    Ask("the domain as an end", "kid", "evil-lab.home", "/x", LAN, 400),
    Ask("the domain itself", "kid", "lab.home", "/x", LAN, 403),
    Ask("no host", "kid", "", "/x", LAN, 400),
    Ask("no host at all", "kid", "", "/x", LAN, 400, more={"X-Forwarded-Host": None}),
    Ask("two hosts", "kid", "cloud.lab.home, evil.test", "/x", LAN, 400),
    Ask("a host with a user", "kid", "evil.test@cloud.lab.home", "/x", LAN, 200, user="kid"),
    Ask("a host as a user", "kid", "cloud.lab.home@evil.test", "/x", LAN, 400),
    Ask("a host with a path", "", "cloud.lab.home/status.php?", "/x", AWAY, 200),
    Ask("a host with a backslash", "kid", "evil.test\\.lab.home", "/x", LAN, 400),
    Ask("a host with a fragment", "kid", "evil.test#.lab.home", "/x", LAN, 400),
    Ask("a host with an escape", "kid", "cloud%2elab.home", "/x", LAN, 400),
    Ask("an address", "kid", "192.0.2.1", "/x", LAN, 400),
    Ask("an IPv6 address", "kid", "[2001:db8::1]", "/x", LAN, 400),
    Ask("a name in brackets", "kid", "[cloud.lab.home]", "/x", LAN, 400),
    # Schemes
    Ask("plain HTTP", "kid", CLOUD, "/x", LAN, 400, more={"X-Forwarded-Proto": "http"}),
    Ask("no scheme", "kid", CLOUD, "/x", LAN, 400, more={"X-Forwarded-Proto": None}),
    Ask("a scheme in capitals", "kid", CLOUD, "/x", LAN, 200, user="kid", more={"X-Forwarded-Proto": "HTTPS"}),
    Ask("WebSocket", "kid", CLOUD, "/x", LAN, 200, user="kid", more={"X-Forwarded-Proto": "wss"}),
    Ask("WebSocket of nobody", "", CLOUD, "/x", LAN, 302, to("wss%3A%2F%2Fcloud.lab.home%2Fx"),
        more={"X-Forwarded-Proto": "wss", "Upgrade": "websocket"}),
    Ask("a scheme that is none", "kid", CLOUD, "/x", LAN, 400, more={"X-Forwarded-Proto": "https://evil.test"}),
    # Paths that are none
    Ask("a path that makes another host", "kid", CLOUD, ".evil.test/x", LAN, 400),
    Ask("a path that makes the host a user", "kid", CLOUD, "@evil.test/x", LAN, 400),
    Ask("a path that makes a port", "kid", CLOUD, ":99/x", LAN, 200, user="kid"),
    Ask("a bad escape", "kid", CLOUD, "/%zz", LAN, 400),
    Ask("half an escape", "kid", CLOUD, "/%", LAN, 400),
    Ask("a query alone", "kid", CLOUD, "?x", LAN, 200, user="kid"),
    Ask("bytes of no encoding", "", CLOUD, "/\xff\xfe", LAN, 302, at("%2F%25FF%25FE")),
    Ask("characters that need an escape", "", CLOUD, '/a b"<>\\^`{|}', LAN, 302,
        at("%2Fa%2520b%2522%253C%253E%255C%255E%2560%257B%257C%257D")),
    # Who calls
    Ask("the first address counts", "kid", CLOUD, "/x", f"{LAN}, {AWAY}", 200, user="kid"),
    Ask("the second does not", "kid", CLOUD, "/x", f"{AWAY}, {LAN}", 403),
    Ask("spaces", "kid", CLOUD, "/x", f"  {LAN}  ", 200, user="kid"),
    Ask("IPv4 in IPv6", "kid", CLOUD, "/x", f"::ffff:{LAN}", 200, user="kid"),
    Ask("no address: the peer's", "kid", CLOUD, "/x", "", 403),
    Ask("words: the peer's", "kid", CLOUD, "/x", "localhost", 403),
    Ask("with a port: the peer's", "kid", CLOUD, "/x", f"{LAN}:1234", 403),
    Ask("zeros ahead: the peer's", "kid", CLOUD, "/x", "192.168.010.005", 403),
    Ask("other names for it", "kid", CLOUD, "/x", AWAY, 403,
        more={"X-Real-IP": LAN, "Forwarded": f"for={LAN}", "True-Client-IP": LAN, "X_Forwarded_For": LAN}),
    # Spoofed
    Ask("identity from outside", "", CLOUD, "/x", LAN, 302, to(X), more={"Remote-User": "owner", "Remote-Groups": "a"}),
    Ask("identity from outside on a bypass", "", CLOUD, "/status.php", LAN, 200,
        more={"Remote-User": "owner", "Remote-Groups": "admins", "remote_user": "owner", "Remote.User": "owner"}),
    Ask("identity from outside as somebody", "kid", CLOUD, "/x", LAN, 200, user="kid", more={"Remote-User": "owner"}),
    Ask("other names for the target", "", CLOUD, "/x", LAN, 302, to(X),
        more={"X-Original-URL": "https://cloud.lab.home/status.php", "X-Rewrite-URL": "/status.php"}),
    Ask("basic authentication", "", CLOUD, "/x", LAN, 302, to(X),
        more={"Authorization": "Basic a2lkOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ=="}),
    # Cookies
    Ask("tampered", "kid", CLOUD, "/x", LAN, 302, to(X), cookie="{}x"),
    Ask("cut", "kid", CLOUD, "/x", LAN, 302, to(X), cookie="{0:.20}"),
    Ask("empty", "kid", CLOUD, "/x", LAN, 302, to(X), cookie=""),
    Ask("made up", "kid", CLOUD, "/x", LAN, 302, to(X), cookie="0123456789abcdefghijklmnopqrstuv"),
    Ask("long", "kid", CLOUD, "/x", LAN, 302, to(X), cookie="x" * 2000),
    Ask("beside others", "kid", CLOUD, "/x", LAN, 200, user="kid", cookie="{}; other=1"),
    Ask("behind another of its name", "kid", CLOUD, "/x", LAN, 302, to(X), cookie="made-up; authelia_session={}"),
    Ask("before another of its name", "kid", CLOUD, "/x", LAN, 200, user="kid", cookie="{}; authelia_session=made-up"),
    Ask("for another domain", "kid", "app.evil.test", "/", LAN, 400),
    # Too much
    Ask("huge header", "kid", CLOUD, "/x", LAN, 431, more={"X-Much": "x" * 6000}),
    Ask("huge cookie", "kid", CLOUD, "/x", LAN, 431, cookie="{}; much=" + "x" * 6000),
    Ask("huge path", "kid", CLOUD, "/" + "x" * 6000, LAN, 431),
]  # fmt: skip

# Where a login may lead: what /api/checks/safe-redirection says; None is "no address at all".
TARGETS: list[tuple[str, bool | None]] = [
    ("https://cloud.lab.home/x?y=z", True),
    ("https://lab.home", True),
    ("https://CLOUD.LAB.HOME/", True),
    ("HTTPS://cloud.lab.home/", True),
    ("wss://cloud.lab.home/", True),
    ("https://cloud.lab.home:8443/", True),
    ("https://me:word@cloud.lab.home/", True),
    ("https://evil.test@cloud.lab.home/", True),
    ("http://cloud.lab.home/", False),
    ("ftp://cloud.lab.home/", False),
    ("javascript:alert(1)", False),
    ("javascript://cloud.lab.home/%0aalert(1)", False),
    ("data:text/html,cloud.lab.home", False),
    ("https://evil.test/", False),
    ("https://evil.test/cloud.lab.home", False),
    ("https://evil.test/?https://cloud.lab.home", False),
    ("https://evil.test?.lab.home", False),
    ("https://evil.test#.lab.home", None),
    ("https://evil.test\\.lab.home/", None),
    ("https://cloud.lab.home\\@evil.test/", None),
    ("https://cloud.lab.home@evil.test/", False),
    ("https://cloud.lab.home:443@evil.test/", False),
    ("https://cloud.lab.home.evil.test/", False),
    ("https://evil-lab.home/", False),
    ("https://evillab.home/", False),
    ("https://lab.home.", False),
    ("https://cloud.lab.home%2eevil.test/", None),
    ("https://evil.test%00.lab.home/", None),
    ("https://evil.test\u2603.lab.home/", True),
    ("https://[cloud.lab.home]/", None),
    ("https://[::1]/", False),
    ("https:cloud.lab.home", False),
    ("https:/cloud.lab.home", False),
    ("https:///cloud.lab.home", False),
    ("//cloud.lab.home/", False),
    ("//evil.test/", False),
    ("/\\evil.test", False),
    ("/x", False),
    ("cloud.lab.home", None),
    (" https://cloud.lab.home/", None),
    ("https://cloud.lab.home/ x", True),
    ("https://cloud.lab.home/\n", None),
    ("\thttps://cloud.lab.home/", None),
    ("https://cloud.lab.home/%zz", None),
    ("", None),
]

# What is no question to the portal.
GARBAGE: list[tuple[str, str, dict[str, str], bytes, int]] = [
    ("POST", "/api/authz/forward-auth", {}, b"", 405),
    ("PUT", "/api/authz/forward-auth", {}, b"", 405),
    ("DELETE", "/api/authz/forward-auth", {}, b"", 405),
    # 200 and nothing decided: a proxy must ask with GET, whatever it was asked with. Caddy does.
    ("OPTIONS", "/api/authz/forward-auth", {}, b"", 200),
    ("GET", "/api/authz/forward-auth", {}, b"", 400),
    ("HEAD", "/api/authz/forward-auth", {}, b"", 400),
    ("GET", "/api/authz/auth-request", {}, b"", 404),
    ("GET", "/api/authz", {}, b"", 404),
    ("GET", "/api/verify", {}, b"", 404),
    ("GET", "/api/verify?rd=https://evil.test", {}, b"", 404),
    ("GET", "/api/firstfactor", {}, b"", 405),
    ("POST", "/api/firstfactor", {}, b"", 401),
    ("POST", "/api/firstfactor", {}, b"{", 401),
    ("POST", "/api/firstfactor", {}, b"[]", 401),
    ("POST", "/api/firstfactor", {}, b"null", 401),
    ("POST", "/api/firstfactor", {}, b"\xff\xfe\x00", 401),
    ("POST", "/api/firstfactor", {}, b'{"username": "kid"}', 401),
    ("POST", "/api/firstfactor", {}, b'{"username": "kid", "password": ""}', 401),
    ("POST", "/api/firstfactor", {}, b'{"username": ["kid"], "password": {"$ne": 1}}', 401),
    ("POST", "/api/firstfactor", {}, b'{"username": 1, "password": 2}', 401),
    ("POST", "/api/firstfactor", {"Content-Type": "application/x-www-form-urlencoded"}, b"username=kid", 401),
    ("POST", "/api/firstfactor", {}, b"x" * 100000, 401),
    ("POST", "/api/secondfactor/totp", {}, b'{"token": "123456"}', 403),
    ("POST", "/api/checks/safe-redirection", {}, b'{"uri": "https://cloud.lab.home"}', 401),
    ("POST", "/api/health", {}, b"", 405),
    ("POST", "/", {}, b"", 405),
]
