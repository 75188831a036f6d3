#!/usr/bin/python3
"""A double of Authelia for the demo lab and the proxy's tests. It protects nobody, and says so in all that it prints.

It reads the configuration and the users file that are generated for the real program, and answers like the real
4.39.21: the table in tests/portal holds both to it. Not here: OpenID Connect, LDAP, WebAuthn, e-mail, settings,
metrics. Sessions and failed attempts are forgotten when it ends.
"""

from __future__ import annotations

import hmac
import html
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from base64 import b32decode
from binascii import Error as NoBase32
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import argon2
import yaml
from authelia_double_rules import LEVELS, RefusedError, Rule, Url, read, seconds

NAME = "authelia-double 4.39.21, a double of Authelia for tests: it protects nobody"
PAGE = Path(__file__).resolve().with_name("authelia_double.html")
FAILED = "Authentication failed. Check your credentials."
LATER = "Authentication failed, please retry later."


def log(level: str, message: str, **more: str) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"level": level, "msg": message, "time": at, **more, "program": NAME}), flush=True)


class Portal:
    """What is remembered and decided. Whoever calls holds the lock."""

    def __init__(self, config: dict) -> None:
        self.config, self.lock, self.users = config, threading.RLock(), {}
        self.sessions: dict[str, dict] = {}
        self.bans: dict[str, float] = {}
        self.buckets: dict[str, tuple[float, float]] = {}
        self.attempts: list[tuple[float, bool, tuple[str, ...]]] = []
        rules, session, regulation = config["access_control"], config["session"], config["regulation"]
        networks = config.get("definitions", {}).get("network", {})
        self.rules = [Rule(rule, networks) for rule in rules.get("rules") or []]
        self.default = LEVELS[rules["default_policy"]]
        self.second = 2 in [self.default, *(rule.level for rule in self.rules)]
        self.domains = {each["domain"]: each for each in session["cookies"]}
        for domain, each in self.domains.items():
            at = Url(each["authelia_url"].encode())
            if at.scheme != "https" or self.domain(at) != domain or session["remember_me"] != -1:
                raise RefusedError("session: an https authelia_url below the domain and remember_me: -1 are expected")
        if len(config["storage"].get("encryption_key", "")) < 20:
            raise RefusedError("storage: option 'encryption_key' is required, with 20 characters or more")
        self.inactivity, self.expiration = seconds(session["inactivity"]), seconds(session["expiration"])
        self.find_time, self.ban_time = seconds(regulation["find_time"]), seconds(regulation["ban_time"])
        limits = config["server"]["endpoints"].get("rate_limits", {}).get("second_factor_totp", {})
        self.limits = [(seconds(each["period"]), each["requests"]) for each in limits.get("buckets", [])] or [(60, 30)]
        self.codes = Path(config["storage"].get("local", {}).get("path", "/tmp/authelia") + ".double.json")  # noqa: S108

    def person(self, name: str) -> tuple[str, dict]:
        """Who bears this name or e-mail address; "" is one who is unknown or disabled."""
        file = self.config["authentication_backend"]["file"]
        try:
            users = yaml.safe_load(Path(file["path"]).read_text())["users"]
            self.users = {name: each for name, each in users.items() if argon2.extract_parameters(each["password"])}
        except (OSError, yaml.YAMLError, TypeError, KeyError, argon2.exceptions.InvalidHash) as error:
            log("error", f"the users file is damaged, the last good one stays: {error!r}")
        search = file.get("search", {})
        for person, each in self.users.items():
            by_name = name == person or (search.get("case_insensitive") and name.lower() == person)
            by_email = search.get("email") and name.lower() == str(each.get("email")).lower()
            if (by_name or by_email) and not each.get("disabled"):
                return person, each
        return "", {}

    def required(self, person: str, details: dict, address: object, url: Url) -> tuple[bool, int]:
        mine = {f"user:{person}", *(f"group:{name}" for name in details.get("groups") or [])} if person else set()
        found = [rule for rule in self.rules if rule.matches(mine, address, url)]
        return (bool(found[0].subjects), found[0].level) if found else (False, self.default)

    def domain(self, url: Url) -> str:
        return next((name for name in self.domains if f".{url.host}".endswith(f".{name}")), "")

    def banned(self, *who: str) -> bool:
        return any(self.bans.get(each, 0) > time.time() for each in who)

    def mark(self, good: bool, *who: str) -> None:
        """Remember a try of (ip …, user …), and ban both after too many failures in a row."""
        now, regulation = time.time(), self.config["regulation"]
        recent = [each for each in self.attempts if each[0] > now - self.find_time]
        self.attempts = [(now, good, who), *recent]
        for each in who:
            mine = [attempt[1] for attempt in self.attempts if each in attempt[2]][: regulation["max_retries"]]
            if each.split()[0] in regulation["modes"] and mine == [False] * regulation["max_retries"]:
                self.bans[each] = now + self.ban_time

    def limited(self, who: str) -> bool:
        """As many requests as a bucket has places, then one for each of its periods."""
        now, full = time.time(), False
        for period, places in self.limits:
            used, since = self.buckets.get(f"{who} {period}", (0.0, now))
            used = max(0.0, used - (now - since) / period)
            full |= used + 1 > places
            self.buckets[f"{who} {period}"] = (used if used + 1 > places else used + 1, now)
        return full

    def step(self, secret: str, token: str) -> int:
        """The step whose one-time code this is, of the current one and its neighbours; 0 is none."""
        for step in (int(time.time() // 30) + each for each in (0, 1, -1)):
            digest = hmac.digest(b32decode(secret + "=" * (-len(secret) % 8)), step.to_bytes(8, "big"), "sha1")
            number = int.from_bytes(digest[digest[-1] & 15 :][:4], "big") & 0x7FFFFFFF
            if hmac.compare_digest(f"{number % 10**6:06}".encode(), token.encode()):
                return step
        return 0


class Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version, timeout = "HTTP/1.1", "authelia-double", "", 6
    error_message_format, error_content_type = f"%(code)d %(message)s: {NAME}\n", "text/plain"
    portal: Portal
    body, cookie = b"", ""

    def do_GET(self) -> None:  # noqa: N802
        length, path = self.headers.get("Content-Length", "0"), self.path.partition("?")[0]
        if len(str(self.headers)) + len(self.requestline) > 4096:
            return self.send_error(431)
        if not re.fullmatch("[0-9]{1,7}", length) or "Transfer-Encoding" in self.headers:
            return self.send_error(400)
        self.body, self.cookie = self.rfile.read(int(length)), ""
        calls = {
            "GET /api/authz/forward-auth": self.authorize,
            "GET /api/health": self.okay,
            "GET /api/state": self.state,
            "POST /api/firstfactor": self.first,
            "POST /api/secondfactor/totp": self.totp,
            "POST /api/checks/safe-redirection": self.safe,
            "POST /api/logout": self.logout,
            "GET /": self.page,
        }
        call = calls.get(f"{self.command.replace('HEAD', 'GET')} {path}")
        with self.portal.lock:
            if call:
                call()
            elif any(each.endswith(f" {path}") for each in calls):
                # A proxy must ask with GET: with OPTIONS the real one says 200 as well, and has decided nothing.
                self.answer(200 if self.command == "OPTIONS" else 405)
            elif path.startswith("/api"):
                self.answer(404)
            else:
                self.page()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_GET  # noqa: N815

    def answer(self, status: int, body: str = "", kind: str = "text/plain", **headers: str) -> None:
        body = body or f"{status} {HTTPStatus(status).phrase}"
        headers |= {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body.encode()))}
        # As with the real one, an answer of bare text carries no cookie.
        headers |= {"Set-Cookie": self.cookie} if self.cookie and kind != "text/plain" else {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def okay(self, **data: object) -> None:
        self.answer(200, json.dumps({"status": "OK", "data": data} if data else {"status": "OK"}), "application/json")

    def refuse(self, status: int, words: str = FAILED) -> None:
        self.answer(status, json.dumps({"status": "KO", "message": words}), "application/json")

    def page(self) -> None:
        nonce = secrets.token_hex(16)
        policy = f"default-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; frame-ancestors 'none'"
        page = PAGE.read_text().replace("NONCE", nonce)
        self.answer(200, page, "text/html", Content_Security_Policy=policy)

    def log_message(self, words: str, *parts: object) -> None:
        self.log("debug", words % parts)

    def log(self, level: str, words: str) -> None:
        log(level, words, method=self.command, path=self.path, remote_ip=str(self.address()))

    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The client's: what X-Forwarded-For names first, else the peer's."""
        first = self.headers.get("X-Forwarded-For", "").partition(",")[0].strip(" ")
        try:
            found = ipaddress.ip_address(first)
        except ValueError:
            found = ipaddress.ip_address(self.client_address[0])
        return getattr(found, "ipv4_mapped", None) or found

    def session(self, domain: str) -> dict:
        """The session of the cookie, or a new one that is nobody's."""
        name = self.portal.config["session"]["name"]
        cookies = [part.strip().partition("=") for part in self.headers.get("Cookie", "").split(";")]
        number = next((value for key, _, value in cookies if key == name and value), secrets.token_urlsafe(24))
        kept = self.portal.sessions.get(number, {"end": 0})
        if kept["end"] < time.time() or kept["domain"] != domain:
            kept = {"number": number, "domain": domain, "person": "", "level": 0, "last": time.time()}
        return kept

    def save(self, session: dict, new: bool = False) -> None:
        """Keep a session; a new number whenever somebody has proved more of who they are."""
        if new:
            self.portal.sessions.pop(session["number"], None)
            session = {**session, "number": secrets.token_urlsafe(24)}
        end = session["end"] = time.time() + self.portal.expiration
        self.portal.sessions[session["number"]] = session
        self.cookie = (
            f"{self.portal.config['session']['name']}={session['number']}; expires={formatdate(end, usegmt=True)}; "
            f"domain={session['domain']}; path=/; HttpOnly; secure; SameSite=Lax"
        )

    def here(self) -> dict:
        """The session at the portal itself."""
        get = self.headers.get
        host, uri = get("X-Forwarded-Host") or get("Host", ""), get("X-Forwarded-Uri") or self.path
        try:
            domain = self.portal.domain(Url(f"{get('X-Forwarded-Proto') or 'http'}://{host}{uri}".encode("latin-1")))
        except RefusedError:
            domain = ""
        return self.session(domain) if domain else {"person": "", "level": 0, "domain": ""}

    def fields(self, *needed: str) -> dict[str, Any]:
        """The request's JSON, or nothing where it is not of that form."""
        try:
            body = json.loads(self.body)
            texts = {key: value for key, value in body.items() if key not in ("keepMeLoggedIn",) and value is not None}
            return body if all(body.get(key) for key in needed) and all(type(v) is str for v in texts.values()) else {}
        except (ValueError, AttributeError):
            return {}

    def authorize(self) -> None:
        portal, get = self.portal, self.headers.get
        method = get("X-Forwarded-Method", "")
        parts = (get("X-Forwarded-Proto", "http"), "://", get("X-Forwarded-Host", ""), get("X-Forwarded-Uri", ""))
        try:
            url = Url("".join(parts).encode("latin-1"))
        except RefusedError:
            return self.answer(400)
        domain = portal.domain(url)
        if not domain or url.scheme not in ("https", "wss") or not parts[2] or not re.fullmatch("[A-Z]+", method):
            return self.answer(400)
        session = self.session(domain)
        person, details = portal.person(session["person"]) if session["person"] else ("", {})
        if session["person"] and (not person or session["last"] + portal.inactivity < time.time()):
            portal.sessions.pop(session["number"], None)
            session, person, details = {**session, "person": "", "level": 0}, "", {}
        session["last"] = time.time()
        self.save(session)
        subjects, level = portal.required(person, details, self.address(), url)
        if level == 0 or 0 < level <= session["level"]:
            groups = ",".join(details.get("groups") or [])
            named = {
                "User": person,
                "Groups": groups,
                "Name": details.get("displayname", ""),
                "Email": details.get("email", ""),
            }
            return self.answer(200, **{f"Remote_{key}": str(value) for key, value in named.items() if person})
        if level == 3 and (person or not subjects):
            self.log(
                "info", f"Access to '{url.text.decode('latin-1')}' is forbidden to user '{person or '<anonymous>'}'"
            )
            return self.answer(403)
        portal_at = portal.domains[domain]["authelia_url"].rstrip("/")
        to = f"{portal_at}/?rd={quote_plus(url.text)}&rm={method}"
        accepts = [part.split(";")[0].strip(" ") for part in get("Accept", "").split(",")]
        if get("X-Requested-With", "").lower() == "xmlhttprequest" or not (
            "text/html" in accepts or accepts[0] == "*/*"
        ):
            status = 401
        else:
            status = 302 if method in ("GET", "HEAD", "OPTIONS") else 303
        words = f'<a href="{html.escape(to)}">{status} {HTTPStatus(status).phrase}</a> ({NAME})'
        return self.answer(status, words, "text/html", Location=to)

    def first(self) -> None:
        portal, body, address = self.portal, self.fields("username", "password"), str(self.address())
        if not body:
            return self.refuse(401)
        person, details = portal.person(body["username"])
        who = (f"ip {address}", f"user {person}") if person else (f"ip {address}",)
        good, banned = False, portal.banned(*who)
        if person and not banned:
            try:
                good = argon2.PasswordHasher().verify(details["password"], body["password"])
            except argon2.exceptions.VerifyMismatchError:
                good = False
        if not banned:
            portal.mark(good, *who)
        if not good:
            words = f"Unsuccessful 1FA authentication attempt by user '{person}'"
            self.log("error", words + " and they are banned" * banned)
            return self.refuse(401)
        self.log("debug", f"Successful 1FA authentication attempt made by user '{person}'")
        session = self.here()
        if not session["domain"]:
            return self.refuse(401)
        self.save({**session, "person": person, "level": 1, "last": time.time()}, new=True)
        return self.onward(body, 1, session["domain"], person, details)

    def onward(self, body: dict, level: int, domain: str, person: str = "", details: dict = {}) -> None:  # noqa: B006
        """Where to after signing in: only to https addresses below the cookie's domain."""
        target, default = body.get("targetURL") or "", self.portal.domains[domain].get("default_redirection_url")
        try:
            url = Url(target.encode("utf-8", "replace")) if target else None
        except RefusedError:
            return self.refuse(200, FAILED if level == 1 else LATER)
        if url and self.portal.domain(url) and url.scheme in ("https", "wss"):
            needs = self.portal.required(person, details, self.address(), url)[1] if level == 1 else 0
            return self.okay() if needs == 2 else self.okay(redirect=target)
        to_default = default and (not self.portal.second if level == 1 else not target)
        return self.okay(redirect=default) if to_default else self.okay()

    def totp(self) -> None:
        portal = self.portal
        if portal.limited(str(self.address())):
            return self.refuse(429, "Too Many Requests")
        session, body = self.here(), self.fields("token")
        if not session["level"]:
            return self.answer(403)
        if not body or len(body["token"]) not in (6, 8):
            return self.refuse(400 if body else 403, LATER)
        known = json.loads(portal.codes.read_text())
        mine = known.get(session["person"], {"secret": "", "used": []})
        step = portal.step(mine["secret"], body["token"]) if mine["secret"] else 0
        if not step or step in mine["used"]:
            self.log("error", f"Unsuccessful TOTP authentication attempt by user '{session['person']}'")
            return self.refuse(403, LATER)
        mine["used"] = [*mine["used"][-9:], step]
        write(portal.codes, known)
        self.save({**session, "level": 2, "last": time.time()}, new=True)
        self.log("debug", f"Successful TOTP authentication attempt made by user '{session['person']}'")
        return self.onward(body, 2, session["domain"])

    def state(self) -> None:
        session = self.here()
        if not session["domain"]:
            return self.answer(403)
        return self.okay(
            username=session["person"],
            authentication_level=session["level"],
            factor_knowledge=session["level"] > 0,
            default_redirection_url=self.portal.domains[session["domain"]].get("default_redirection_url"),
        )

    def safe(self) -> None:
        if not self.here()["level"]:
            return self.answer(401)
        try:
            url = Url(str(self.fields("uri").get("uri", "")).encode("utf-8", "replace"))
        except RefusedError:
            return self.refuse(200, "Operation failed.")
        return self.okay(ok=bool(self.portal.domain(url)) and url.scheme in ("https", "wss"))

    def logout(self) -> None:
        number = self.here().get("number", "")
        self.portal.sessions.pop(number, None)
        name = self.portal.config["session"]["name"]
        self.cookie = f"{name}=; expires={formatdate(time.time() - 60, usegmt=True)}; path=/; HttpOnly"
        return self.okay(safeTargetURL=False)


def write(path: Path, codes: dict) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(codes))
    part.chmod(0o600)
    part.replace(path)


def serve(portal: Portal) -> None:
    Handler.portal = portal
    portal.person("")
    if not portal.users:
        raise RefusedError("authentication_backend: there is no file of users that can be read")
    if not portal.codes.exists():
        write(portal.codes, {})
    at = urlsplit(portal.config["server"]["address"])
    server = ThreadingHTTPServer((at.hostname or "", at.port or 9091), Handler, bind_and_activate=False)
    server.socket.close()
    both = not at.hostname and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    address = (at.hostname or "", at.port or 9091)
    server.socket = socket.create_server(address, family=family, dualstack_ipv6=both, backlog=128)
    log("info", f"Listening on {portal.config['server']['address']}")
    server.serve_forever()


def main(words: list[str]) -> None:
    options = dict(zip(words, words[1:], strict=False))
    given = [options.pop(name) for name in ("--config", "-c", "--secret") if name in options]
    path = options.get("--config") or next(
        iter(given), os.environ.get("X_AUTHELIA_CONFIG", "/config/configuration.yml")
    )
    plain = [word for word in words if not word.startswith("-") and word not in given]
    if "--version" in words:
        print(NAME)
        return
    portal = Portal(read(path))
    if not plain:
        serve(portal)
    elif plain == ["config", "validate"]:
        print(f"{NAME}: configuration parsed and loaded successfully without errors")
    elif plain[:3] == ["storage", "user", "totp"] and len(plain) == 5:
        codes, person = json.loads(portal.codes.read_text()), plain[4]
        if plain[3] == "generate" and (person not in codes or "--force" in words or "-f" in words):
            b32decode(words[words.index("--secret") + 1])
            codes[person] = {"secret": words[words.index("--secret") + 1], "used": []}
        elif plain[3] == "delete" and person in codes:
            del codes[person]
        else:
            raise RefusedError(f"{person}: has a TOTP configuration already (--force), or has none")
        write(portal.codes, codes)
        print(f"{NAME}: {plain[3]}d the TOTP configuration of user '{person}'")
    else:
        raise RefusedError(
            "usage: [--config FILE] | config validate | storage user totp generate|delete USER | --version"
        )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        main(sys.argv[1:])
    except (RefusedError, NoBase32, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as refusal:
        sys.exit(f"{NAME}: {refusal!r}")
