"""The release before: how it labelled containers. To be removed with the second release after it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from ringfence.host.compose import writable_in_memory
from ringfence.host.projects import home


def old_spec(project: dict[str, Any], service: dict[str, Any], log: dict[str, Any]) -> str:
    """Return the digest that ringfence 0.1's first compose files, made from a text template, had for a service.

    Containers with that label are what is declared, and are kept.
    """

    def text(value: Any) -> str:
        return quoted(str(value).replace("$", "$$"))

    def quoted(value: Any) -> str:
        out = json.dumps(value, sort_keys=True)
        for character in "<>&'":
            out = out.replace(character, f"\\u{ord(character):04x}")
        return out

    def block(key: str, lines: Iterable[str]) -> list[str]:
        return [f"    {key}:", *lines]

    here, s = home(project), service
    out = [f"    image: {text(s['image'])}", "    restart: unless-stopped", "    cap_drop: [ALL]"]
    out += [f"    cap_add: {quoted(list(s['capabilities']))}"] if s["capabilities"] else []
    out += ['    security_opt: ["no-new-privileges:true"]', f"    pids_limit: {s['pids']}"]
    out += [f"    mem_limit: {quoted(str(s['memory']))}"] if s["memory"] else []
    out += [f"    user: {quoted(str(s['user']))}"] if s["user"] else []
    out += ["    init: true"] if s["init"] else []
    out += ["    read_only: true"] if s["read_only"] else []
    out += [f"    tmpfs: {quoted(writable_in_memory(s))}"] if writable_in_memory(s) else []
    out += block("command", (f"      - {text(word)}" for word in s["command"])) if s["command"] else []
    pairs = sorted(s["environment"].items())
    out += block("environment", (f"      {key}: {text(value)}" for key, value in pairs)) if pairs else []
    if s["health"]:
        out += ["    healthcheck:", "      test:"]
        out += [] if s["health"][0] in ("CMD", "CMD-SHELL", "NONE") else ["        - CMD"]
        out += [f"        - {text(word)}" for word in s["health"]]
        out += ["      interval: 10s", "      timeout: 5s", "      retries: 6", "      start_period: 60s"]
    if s["depends"]:
        health = {other["name"]: other["health"] for other in project["services"]}
        out.append("    depends_on:")
        for name in s["depends"]:
            condition = "service_healthy" if health.get(name) else "service_started"
            out += [f"      {name}:", f"        condition: {condition}"] if name in health else []
    binds = [(v, v["target"], v.get("read_only", False)) for v in s["volumes"]]
    binds += [({"source": f"{here}/files/{s['name']}{f['target']}"}, f["target"], True) for f in s["files"]]
    binds += [({"source": f"{here}/secrets/{n}"}, f"/run/secrets/{n}", True) for n in s["secrets"]]
    out += ["    volumes:"] if binds else []
    for source, target, read_only in binds:
        if source.get("name"):
            out += ["      - type: volume", f"        source: {quoted(source['name'])}"]
        else:
            out += ["      - type: bind", f"        source: {text(source['source'])}"]
            out += ["        bind: {create_host_path: false}"]
        out += [f"        target: {text(target)}", f"        read_only: {quoted(read_only)}"]
    ports = [(p["port"], p["published"], p.get("proto") or "tcp") for p in s["ports"]]
    lines = (f'      - {{target: {port}, published: "{on}", protocol: {proto}}}' for port, on, proto in ports)
    out += block("ports", lines) if ports else []
    hosts = sorted(s["extra_hosts"].items())
    out += block("extra_hosts", (f"      {name}: {quoted(address)}" for name, address in hosts)) if hosts else []
    if s["networks"]:
        out.append("    networks:")
        for leg in s["networks"]:
            out += [f"      {leg['network']}:", f"        ipv4_address: {leg['address']}"]
    else:
        out.append("    network_mode: none")
    out += ["    logging:", "      driver: json-file", "      options:"]
    out += [f"        max-size: {quoted(log['max_size'])}", f'        max-file: "{log["max_file"]}"']
    out += ['        tag: "{{.Name}}"', "    labels:", f"      ringfence.project: {quoted(project['name'])}"]
    out += [f"      ringfence.service: {quoted(s['name'])}", '      ringfence.spec: "@SPEC@"']
    return hashlib.sha256("".join(f"{line}\n" for line in out).encode()).hexdigest()
