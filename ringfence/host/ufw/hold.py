"""What ufw lets in, and nothing more, in force while ufw is stopped: a copy of its chains."""

from __future__ import annotations

import contextlib
import fcntl
import re
from pathlib import Path

from ringfence.host.files import read, replace_file
from ringfence.host.lock import lock
from ringfence.host.running import Fault, must, run, say
from ringfence.host.tables import families, iptables, live_text, parse_policies, parse_save
from ringfence.host.ufw.kernel import configured
from ringfence.host.ufw.state import (
    CONF,
    DEFAULTS,
    DIRECTIONS,
    ETC,
    HOLD,
    HOOKS,
    PREFIX,
    assignments,
    section,
    ufw_chains,
)

COMMANDS = Path("/run/ufw.lock")  # held by each of ufw's commands
# There while the hold may be in force, so that a boot need not ask the kernel.
HELD = Path("/run/ringfence/ufw-held")
# Neighbour discovery: without it what is established would soon end, too.
DISCOVERY = (133, 134, 135, 136)


def hold_text(family: str, files: list[str], policies: dict[str, str]) -> str:
    """The transaction that puts the hold at the end of the built-in chains, behind what Docker lets pass.

    Args:
        family: "4" or "6".
        files: texts of ufw's files of rules, in its order.
        policies: of the built-in chains, as ufw sets them.
    """
    prefix = PREFIX[family]

    def copied(line: str) -> str:
        line = re.sub(rf"-j {prefix}skip-to-policy-(\w+)", lambda found: f"-j {verdict(found[1])}", line)
        return re.sub(rf"(?<= ){prefix}", HOLD, line)

    def verdict(way: str) -> str:
        return next(policies[builtin] for builtin, name in DIRECTIONS.items() if name == way)

    given = [line for text in files for line in section(text)]
    own = [line[1:].split()[0] for line in given if line.startswith(f":{prefix}")]
    names = [name.removeprefix(prefix) for name in (*ufw_chains(family), *own)]
    lines = ["*filter", *(f":{HOLD}{name} - [0:0]" for name in dict.fromkeys([*names, *DIRECTIONS.values()]))]
    lines += [f"-A {HOLD}input -i lo -j ACCEPT", f"-A {HOLD}output -o lo -j ACCEPT"]
    lines += [f"-A {HOLD}{way} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT" for way in DIRECTIONS.values()]
    if family == "6":
        found = "-p ipv6-icmp -m icmp6 --icmpv6-type {} -m hl --hl-eq 255 -j ACCEPT"
        lines += [f"-A {HOLD}input {found.format(kind)}" for kind in DISCOVERY]
    lines += [copied(line) for line in given if re.match(rf"-[AI] {prefix}", line)]
    for builtin, way in DIRECTIONS.items():
        lines += [f"-A {HOLD}before-{way} -j {HOLD}user-{way}"]
        lines += [f"-A {HOLD}{way} -j {HOLD}{hook}-{way}" for hook in HOOKS]
        lines += [f"-A {HOLD}{way} -j DROP" for _ in [0] if policies[builtin] == "DROP"]
        lines += [f"-A {builtin} -j {HOLD}{way}"]
    return "\n".join([*lines, "COMMIT", ""])


def jumps(chains: dict[str, list[str]]) -> list[str]:
    """The rules that lead into the hold, as commands that delete them."""
    heads = {f"-j {HOLD}{way}" for way in DIRECTIONS.values()}
    return [f"-D {builtin} {rule}" for builtin in DIRECTIONS for rule in chains.get(builtin, []) if rule in heads]


def hold(always: bool = False) -> None:
    """Put the hold into force, or make it anew.

    Args:
        always: also where ufw is not in force, whose files may then hold anything: not even the way in.

    Raises:
        Fault: it is not in force, and ufw must work all the same.
    """
    conf = assignments(read(DEFAULTS)) | assignments(read(CONF))
    policies = {"INPUT": "DROP"}
    for builtin in ("OUTPUT", "FORWARD"):
        policies[builtin] = "ACCEPT" if configured(conf, builtin) == "ACCEPT" else "DROP"
    replace_file(HELD, "")
    for family in families():
        number = family[1]
        suffix = "6" if number == "6" else ""
        chains = parse_save(live_text(family) or "").get("filter", {})
        if not always and f"{PREFIX[number]}user-input" not in chains:
            continue
        texts = [read(ETC / f"{part}{suffix}.rules") for part in ("before", "after", "user")]
        # What somebody wrote into the other files and does not load would not keep the declared rules out.
        for files in (texts, texts[2:]):
            text = hold_text(number, files, policies).replace("COMMIT\n", "\n".join([*jumps(chains), "COMMIT", ""]))
            result = run(iptables(family, "restore"), "--noflush", "--wait", "10", text=text)
            if not result.returncode:
                break
        else:
            raise Fault(
                f"what ufw lets in cannot be kept in force while it is stopped ({family}): {result.stderr.strip()}"
            )


def release(ended: bool = False) -> None:
    """Take the hold away where ufw denies again by itself; where it does not, the hold stays.

    Args:
        ended: take it away whatever ufw does: ringfence goes.
    """
    stays = False
    for family in families():
        text = live_text(family) or ""
        chains = parse_save(text).get("filter", {})
        own = [chain for chain in chains if chain.startswith(HOLD)]
        if not own:
            continue
        if not ended and parse_policies(text)["filter"].get("INPUT") != "DROP":
            say(f"ufw does not deny by default ({family}): what it let in before stays in force, and nothing more")
            stays = True
            continue
        lines = [*(f":{chain} - [0:0]" for chain in own), *jumps(chains), *(f"-X {chain}" for chain in own)]
        must(
            iptables(family, "restore"), "--noflush", "--wait", "10", text="\n".join(["*filter", *lines, "COMMIT", ""])
        )
    if not stays:
        HELD.unlink(missing_ok=True)


def ufw_waits() -> contextlib.AbstractContextManager[None]:
    """Within, ufw's commands wait as they do for each other: one that stops ufw meanwhile would have the hold in force,
    and it would be taken for what is left of an earlier stop. Not for what ufw's own hooks call, which it waits for.

    Raises:
        Fault: one of them is at work for too long.
    """
    return lock(COMMANDS, take=fcntl.lockf)


def restart_held() -> None:
    """Stop and start ufw without an open moment, whether or not its hooks are in place."""
    with ufw_waits():
        hold(always=True)
        init = "/usr/lib/ufw/ufw-init" if Path("/usr/lib/ufw/ufw-init").exists() else "/lib/ufw/ufw-init"
        must(init, "force-stop", timeout=60)
        must(init, "start", timeout=60)
        release()
