#!/usr/bin/python3
"""A double of Authelia for the demo lab and the proxy's tests. It protects nobody, and says so in all that it prints.

It reads the configuration and the users file that are generated for the real program, and answers like the real
4.39.21: the table in tests/portal holds both to it. Not here: OpenID Connect, LDAP, WebAuthn, e-mail, settings,
metrics. Sessions and failed attempts are forgotten when it ends.
"""

from __future__ import annotations

import argparse
import html
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import sys
import time
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import yaml
from authelia_double_rules import Portal, RefusedError, parse, read

NAME = "authelia-double 4.39.21, a double of Authelia for tests: it protects nobody"
PAGE = Path(__file__).resolve().with_name("authelia_double.html")
FAILED = "Authentication failed. Check your credentials."
LATER = "Authentication failed, please retry later."


def log(level: str, message: str, **more: str) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"level": level, "msg": message, "time": at, **more, "program": NAME}), flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version, timeout = "HTTP/1.1", "authelia-double", "", 6
    error_message_format, error_content_type = f"%(code)d %(message)s: {NAME}\n", "text/plain"
    portal: Portal
    body, cookie = b"", ""

    def do_GET(self) -> None:
        length, path = self.headers.get("Content-Length", "0"), self.path.partition("?")[0]
        if len(str(self.headers)) + len(self.requestline) > self.portal.config["server"].get("buffers", {}).get(
            "read", 4096
        ):
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
        nobody = {"number": number, "domain": domain, "person": "", "level": 0, "last": time.time()}
        kept = self.portal.sessions.get(number, nobody)
        return kept if kept["domain"] == domain and kept.get("end", time.time()) >= time.time() else nobody

    def save(self, session: dict, new: bool = False) -> None:
        """Keep a session; with a new number whenever somebody has proved more of who they are."""
        if new:
            self.portal.sessions.pop(session["number"], None)
            session = {**session, "number": secrets.token_urlsafe(24)}
        self.portal.keep(session)
        ends, name = formatdate(session["end"], usegmt=True), self.portal.config["session"]["name"]
        rest = f"domain={session['domain']}; path=/; HttpOnly; secure; SameSite=Lax"
        self.cookie = f"{name}={session['number']}; expires={ends}; {rest}"

    def here(self) -> dict:
        """The session at the portal itself."""
        get = self.headers.get
        host, uri = get("X-Forwarded-Host") or get("Host", ""), get("X-Forwarded-Uri") or self.path
        url = parse(f"{get('X-Forwarded-Proto') or 'http'}://{host}{uri}".encode("latin-1"))
        domain = self.portal.domain(url) if url else ""
        return self.session(domain) if domain else {"number": "", "person": "", "level": 0, "domain": ""}

    def fields(self, *needed: str) -> dict[str, Any]:
        """The request's JSON, or nothing where it is not of that form."""
        try:
            body = json.loads(self.body)
            texts = all(isinstance(each, str) for key, each in body.items() if key != "keepMeLoggedIn")
            return body if texts and all(body.get(key) for key in needed) else {}
        except (ValueError, AttributeError):
            return {}

    def authorize(self) -> None:
        portal, get = self.portal, self.headers.get
        method = get("X-Forwarded-Method", "")
        parts = [get(f"X-Forwarded-{name}", "http" * (name == "Proto")).strip() for name in ("Proto", "Host", "Uri")]
        url = parse("{}://{}{}".format(*parts).encode("latin-1"))
        domain = self.portal.domain(url) if url else ""
        if not url or not domain or not url.secure or not parts[1] or not re.fullmatch("[A-Z]+", method):
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
            named = {"User": person, "Groups": ",".join(details.get("groups") or [])} if person else {}
            named |= {"Name": details.get("displayname", ""), "Email": details.get("email", "")} if person else {}
            return self.answer(200, **{f"Remote_{key}": str(value) for key, value in named.items()})
        if level == 3 and (person or not subjects):
            self.log("info", f"Access to '{url.text.decode('latin-1')}' is forbidden to user '{person}'")
            return self.answer(403)
        to = f"{portal.domains[domain]['authelia_url'].rstrip('/')}/?rd={quote_plus(url.text)}&rm={method}"
        accepts = [part.split(";")[0].strip(" ") for part in get("Accept", "").split(",")]
        browser = "text/html" in accepts or accepts[0] == "*/*"
        status = 302 if method in ("GET", "HEAD", "OPTIONS") else 303
        if not browser or get("X-Requested-With", "").lower() == "xmlhttprequest":
            status = 401
        words = f'<a href="{html.escape(to)}">{status} {HTTPStatus(status).phrase}</a> ({NAME})'
        return self.answer(status, words, "text/html", Location=to)

    def first(self) -> None:
        portal, body, address = self.portal, self.fields("username", "password"), str(self.address())
        if not body:
            return self.refuse(401)
        person, details = portal.person(body["username"])
        who = (f"ip {address}", f"user {person}") if person else (f"ip {address}",)
        banned = portal.banned(*who)
        good = bool(person) and not banned and portal.is_password(details["password"], body["password"])
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
        url = parse(target.encode("utf-8", "replace"))
        if target and not url:
            return self.refuse(200, FAILED if level == 1 else LATER)
        if url and self.portal.domain(url) and url.secure:
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
        if not portal.redeem(session["person"], body["token"]):
            self.log("error", f"Unsuccessful TOTP authentication attempt by user '{session['person']}'")
            return self.refuse(403, LATER)
        self.save({**session, "level": 2, "last": time.time()}, new=True)
        self.log("debug", f"Successful TOTP authentication attempt made by user '{session['person']}'")
        return self.onward(body, 2, session["domain"])

    def state(self) -> None:
        session = self.here()
        data = {"username": session["person"], "authentication_level": session["level"]}
        return self.okay(**data) if session["domain"] else self.answer(403)

    def safe(self) -> None:
        if not self.here()["level"]:
            return self.answer(401)
        url = parse(str(self.fields("uri").get("uri", "")).encode("utf-8", "replace"))
        good = url is not None and bool(self.portal.domain(url)) and url.secure
        return self.okay(ok=good) if url else self.refuse(200, "Operation failed.")

    def logout(self) -> None:
        self.portal.sessions.pop(self.here()["number"], None)
        name = self.portal.config["session"]["name"]
        self.cookie = f"{name}=; expires={formatdate(time.time() - 60, usegmt=True)}; path=/; HttpOnly"
        return self.okay(safeTargetURL=False)


def serve(portal: Portal) -> None:
    Handler.portal = portal
    portal.person("")
    if not portal.codes.exists():
        portal.write({})
    at = urlsplit(portal.config["server"]["address"])
    where, both = (at.hostname or "", at.port or 9091), not at.hostname and socket.has_dualstack_ipv6()
    server = ThreadingHTTPServer(where, Handler, bind_and_activate=False)
    server.socket.close()
    family = socket.AF_INET6 if both else socket.AF_INET
    server.socket = socket.create_server(where, family=family, dualstack_ipv6=both, backlog=128)
    log("info", f"Listening on {portal.config['server']['address']}")
    server.serve_forever(3600)


def main() -> None:
    options = argparse.ArgumentParser(description=NAME)
    options.add_argument(
        "words", nargs="*", help="config validate, storage user totp generate|delete PERSON; nothing: serve"
    )
    options.add_argument("--version", action="version", version=NAME)
    options.add_argument("-c", "--config", default=os.environ.get("X_AUTHELIA_CONFIG", "configuration.yml"))
    options.add_argument("--secret", default="")
    options.add_argument("-f", "--force", action="store_true")
    given = options.parse_args()
    portal = Portal(read(given.config))
    match given.words:
        case []:
            serve(portal)
        case ["config", "validate"]:
            print(f"{NAME}: configuration parsed and loaded successfully without errors")
        case ["storage", "user", "totp", ("generate" | "delete") as verb, person]:
            portal.set_code(verb, person, given.secret, given.force)
            print(f"{NAME}: {verb}d the TOTP configuration of '{person}'")
        case _:
            options.error(f"{' '.join(given.words)}: not known")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        main()
    except (RefusedError, OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as refusal:
        sys.exit(f"{NAME}: {refusal if isinstance(refusal, (RefusedError, OSError)) else repr(refusal)}")
