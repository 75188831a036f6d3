"""A proxy with public certificates and a CA that gives them (Caddy's own ACME server), alone in a network namespace.

acme.py FOLDER, in namespaces of its own for network and mounts; prints what clients see as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.live.labs import waited_for
from tests.unit.caddy.proxy import caddyfile, program

NAMES = ("ca.lab.home", "auth.lab.home", "cloud.lab.home")
SERVER = """\
{
	admin off
	http_port 8080
	https_port 8443
	skip_install_trust
	pki {
		ca public {
			root_cn "the public root"
		}
	}
}
ca.lab.home:8443 {
	tls {
		issuer internal {
			ca public
		}
	}
	acme_server {
		ca public
		challenges http-01
	}
}
"""


def run(folder: Path, text: str) -> subprocess.Popen[bytes]:
    (folder / "run").mkdir(parents=True)
    (folder / "Caddyfile").write_text(text)
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    words = [program(), "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]
    log = (folder / "log").open("wb")
    return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)


def issuer(name: str, root: Path) -> str:
    """Who signed a name's certificate; "" where there is none."""
    try:
        context = ssl.create_default_context(cafile=root)
        with context.wrap_socket(socket.create_connection(("127.0.0.1", 443), 5), server_hostname=name) as found:
            parts = dict(part for [part] in (found.getpeercert() or {})["issuer"])
            return str(parts["commonName"])
    except OSError:
        return ""


def plain(path: str) -> list[Any]:
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=10)
    connection.request("GET", path, headers={"Host": "cloud.lab.home"})
    answer = connection.getresponse()
    return [answer.status, answer.getheader("Location")]


def main(folder: Path) -> None:
    hosts = folder / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *NAMES)))
    for command in ("ip link set lo up", f"mount --bind {hosts} /etc/hosts"):
        subprocess.run(command.split(), check=True)
    running = [run(folder / "ca", SERVER)]
    root = folder / "ca/caddy/pki/authorities/public/root.crt"
    try:
        assert waited_for(root.exists, 30), (folder / "ca/log").read_text()
        everybody = {"login": True, "networks": ["any"], "hours": {}}
        text = caddyfile(
            certificates="acme",
            acme={
                "email": "owner@lab.home",
                "ca": "https://ca.lab.home:8443/acme/public/directory",
                "ca_root": root.read_text(),
            },
            listen_http=80,
            listen_https=443,
            portal={"name": "auth.lab.home", "upstream": "127.0.0.1:9", "networks": ["any"]},
            sites=[{"name": "cloud.lab.home", "upstream": "127.0.0.1:9", "rules": [everybody]}],
        )
        for there, here in (("/etc/caddy/acme-root.pem", root), ("unix//run/caddy/", f"unix/{folder}/proxy/run/")):
            text = text.replace(there, str(here))
        running.append(run(folder / "proxy", text))
        sites = ("cloud.lab.home", "auth.lab.home")
        waited_for(lambda: all(issuer(name, root) for name in sites), 60)
        signed = {name: issuer(name, root) for name in sites}
        print(
            json.dumps(
                {
                    "signed": signed,
                    "unknown": issuer("other.lab.home", root),
                    "plain": plain("/x?y=1"),
                    "challenge": plain("/.well-known/acme-challenge/guessed"),
                    "log": (folder / "proxy/log").read_text()[-3000:] if "" in signed.values() else "",
                }
            )
        )
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]))
