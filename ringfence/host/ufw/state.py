"""What is there: ufw's files, the kernel's rules, units and rivals."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ringfence.host.files import read
from ringfence.host.nowhere import tried_nowhere
from ringfence.host.packages import package_states
from ringfence.host.running import HUNG, MISSING, Fault, run
from ringfence.host.tables import iptables, live_text, parse_save
from ringfence.host.ufw.rules import PROTOCOLS, Lists, network, parse_tuple
from ringfence.host.units import booted, unit_states

ETC = Path("/etc/ufw")
CONF = ETC / "ufw.conf"
DEFAULTS = Path("/etc/default/ufw")
TEMPLATES = Path("/usr/share/ufw/iptables")
USER = {"4": ETC / "user.rules", "6": ETC / "user6.rules"}
PREFIX = {"4": "ufw-", "6": "ufw6-"}
# What ufw loads, in the order in which it hooks it into each built-in chain.
HOOKS = ("before-logging", "before", "after", "after-logging", "reject", "track")
DIRECTIONS = {"INPUT": "input", "OUTPUT": "output", "FORWARD": "forward"}
# Chains of the hold (`ufw.hold`); beside those of ufw, so that whoever puts ufw back puts them back or takes them away.
HOLD = "ufw-h-"
RIVALS = {
    "iptables-persistent": "apt-get remove iptables-persistent netfilter-persistent",
    "netfilter-persistent": "apt-get remove netfilter-persistent",
    "firewalld": "systemctl disable --now firewalld, or apt-get remove firewalld",
}


class Live(NamedTuple):
    """The filter table of one family as the kernel has it; rules in canonical form."""

    policies: dict[str, str]
    chains: dict[str, list[str]]


class State:
    """Everything that is compared.

    Attributes:
        conf: ufw's settings.
        rules: of ufw's files, by family.
        malformed: tuples that ufw cannot read.
        missing: ufw's files that are not there.
        broken: ufw's files that do not load, and iptables-restore's complaint.
        files: chains of ufw's rules files, by family.
        listed: the chains of all of ufw's files as the kernel lists them once they are loaded, by family; of those
            families only where that could be tried.
        live: what the kernel has, by family.
        hold: whether the hold is in force, as while ufw is stopped.
        beside: rules of INPUT that are not ufw's and let something in, as iptables-save prints them, by family.
        added: rules that somebody has put into ufw's own before.rules or after.rules and that let something in, as
            (file, chain, rule), by family.
        chains: the kernel's filter table, rules as iptables-save prints them, by family.
        led: rules of others' chains that INPUT leads to and that let something in, chain before rule, by family.
        interfaces: names of the host's interfaces.
        tailscaled: whether it runs on the host itself.
        units: systemd's view of ufw and its rivals.
        rivals: installed packages that manage the same tables.
        ipv6: whether the kernel has it.
    """

    def __init__(self, installed: bool, ipv6: bool = True) -> None:
        self.installed = installed
        self.conf: dict[str, str] = {}
        self.rules: Lists = {"4": [], "6": []}
        self.malformed: list[str] = []
        self.missing: list[Path] = []
        self.broken: dict[Path, str] = {}
        self.files: dict[str, dict[str, list[str]]] = {}
        self.listed: dict[str, dict[str, list[str]]] = {}
        self.live: dict[str, Live] = {}
        self.hold = False
        self.beside: dict[str, list[str]] = {"4": [], "6": []}
        self.added: dict[str, list[tuple[str, str, str]]] = {"4": [], "6": []}
        self.chains: dict[str, dict[str, list[str]]] = {"4": {}, "6": {}}
        self.led: dict[str, list[str]] = {"4": [], "6": []}
        self.interfaces: set[str] = set()
        self.tailscaled = False
        self.units: dict[str, dict[str, str]] = {}
        self.rivals: list[str] = []
        self.ipv6 = ipv6

    @property
    def enabled(self) -> bool:
        return self.conf.get("ENABLED", "no").lower() == "yes"

    @property
    def families(self) -> list[str]:
        return ["4", "6"] if self.ipv6 else ["4"]

    def loaded(self, family: str) -> bool:
        return f"{PREFIX[family]}user-input" in self.live[family].chains


def assignments(text: str) -> dict[str, str]:
    """KEY=value lines of a shell file."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*([A-Za-z0-9_]+)=(.*)", line)
        if match:
            found[match[1]] = match[2].strip().strip("\"'")
    return found


# What iptables-save prints although nobody wrote it.
IMPLIED = {
    ("--limit-burst", "5"), ("--reject-with", "icmp-port-unreachable"), ("--reject-with", "icmp6-port-unreachable"),
    ("--name", "DEFAULT"), ("--rsource", ""), ("-p", "all"), ("-s", "0.0.0.0/0"), ("-d", "0.0.0.0/0"),
    ("-s", "::/0"), ("-d", "::/0"),
}  # fmt: skip


# What people write, and iptables-save never prints: the same in its words (iptables(8), iptables-extensions(8)).
SHORT = {
    "--protocol": "-p", "--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d", "--in-interface": "-i",
    "--out-interface": "-o", "--jump": "-j", "--goto": "-g", "--match": "-m", "--source-port": "--sport",
    "--destination-port": "--dport", "--source-ports": "--sports", "--destination-ports": "--dports",
}  # fmt: skip


def canonical(rule: str) -> str:
    """One rule without the differences between how ufw writes it and how iptables-save prints it."""
    return " ".join(sorted(options(rule)))


def options(rule: str) -> list[str]:
    """What a rule asks for and does, one option with its value each; "! " before what it asks the opposite of."""
    found = []
    option, negated = "", False
    values: list[str] = []
    for written in [*shlex.split(rule), "-"]:
        word = SHORT.get(written, written)
        if word == "!":
            negated = True
            continue
        if not word.startswith("-") or (option in ("--log-prefix", "--comment") and not values):
            values.append(word)
            continue
        value = " ".join(values)
        if option.lstrip("! ") in ("-s", "-d"):
            with contextlib.suppress(ValueError):  # in a file there may be a name, or several with commas
                value = network(value)
        if option == "-p" and value.isdecimal():
            value = PROTOCOLS.get(int(value), value)
        if option == "--limit":
            value = value.replace("minute", "min")
        if option.lstrip("! ") in ("--ctstate", "--state"):
            value = ",".join(sorted(value.split(",")))
        if option not in ("", "-m", "--comment", "--mask") and (option.lstrip("! "), value) not in IMPLIED:
            found.append(f"{option} {value}".strip())
        option, values, negated = (f"! {word}" if negated else word), [], False
    return found


def parse_rules(text: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read the filter table of iptables-save output or of a file of ufw: policies, chains in canonical form."""
    policies: dict[str, str] = {}
    chains: dict[str, list[str]] = {}
    table = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("*"):
            table = line[1:]
        elif table != "filter":
            continue
        elif line.startswith(":"):
            name, policy = [*line[1:].split(), "-"][:2]
            chains.setdefault(name, [])
            if policy != "-":
                policies[name] = policy
        elif line.startswith(("-A ", "-I ")):
            chain, _, rule = line[3:].partition(" ")
            try:
                form = canonical(rule)
            except ValueError:
                form = rule
            if line.startswith("-I "):
                chains.setdefault(chain, []).insert(0, form)
            else:
                chains.setdefault(chain, []).append(form)
    return policies, chains


def section(text: str) -> list[str]:
    """The lines of the filter table of a rules file."""
    found, table = [], ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("*"):
            table = line[1:]
        elif table == "filter":
            found.append(line)
    return found


def gather() -> State:
    """Read everything; a host without ufw or iptables simply has nothing of them.

    Raises:
        Fault: something that is there does not answer.
    """
    state = State(installed=CONF.exists() and DEFAULTS.exists(), ipv6=Path("/proc/sys/net/ipv6").exists())
    state.conf = assignments(read(DEFAULTS)) | assignments(read(CONF))
    for family, path in USER.items():
        text = read(path)
        if state.installed and not text.strip():
            state.missing.append(path)
        for line in text.splitlines():
            if line.startswith("### tuple ###"):
                rule = parse_tuple(line, family)
                if rule is None:
                    state.malformed.append(line)
                else:
                    state.rules[family].append(rule)
        state.files[family] = parse_rules(text)[1]
    for family in ("4", "6"):
        text = (live_text(f"v{family}") or "") if family in state.families else ""
        state.live[family] = Live(*parse_rules(text))
        state.hold = state.hold or any(chain.startswith(HOLD) for chain in state.live[family].chains)
        chains = state.chains[family] = parse_save(text).get("filter", {})
        state.beside[family] = opening(chains.get("INPUT", []))
        state.led[family] = [f"{chain} {rule}" for chain in led_to(chains) for rule in opening(chains[chain])]
        if state.installed and family in state.families:
            check_files(state, family)
            state.added[family] = added_rules(family, state.listed.get(family))
    state.interfaces = {path.name for path in Path("/sys/class/net").iterdir()}
    state.tailscaled = runs_here("tailscaled")
    names = ["ufw.service", "nftables.service"]
    state.units = unit_states(names, ["LoadState", "UnitFileState", "ActiveState"]) if booted() else {}
    state.rivals = [name for name, status in package_states(RIVALS).items() if status == "installed"]
    return state


def runs_here(name: str, proc: Path = Path("/proc")) -> bool:
    """Whether a program of that name runs with the host's own network, and not in a container with one of its own."""
    own = (proc / "self/ns/net").readlink()
    for comm in proc.glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has ended
            if comm.read_text(encoding="utf-8").strip() == name and (comm.parent / "ns/net").readlink() == own:
                return True
    return False


def opening(rules: list[str]) -> list[str]:
    """The rules that let in what ufw does not know of: neither the host's own nor what is established."""
    found = []
    for rule in rules:
        if "ACCEPT" not in rule:  # taking a rule apart takes its time, and a ban list has thousands
            continue
        try:
            asked = options(rule)
        except ValueError:  # a quotation that does not end
            found.append(rule)
            continue
        if "-j ACCEPT" in asked and not _harmless(asked):
            found.append(rule)
    return found


def _harmless(asked: list[str]) -> bool:
    """Whether what a rule asks for is loopback's alone, or established."""
    rest = [option for option in asked if option != "-j ACCEPT"]
    if rest == ["-i lo"]:
        return True
    states = [option.partition(" ")[2].split(",") for option in rest if option.startswith(("--ctstate ", "--state "))]
    return len(rest) == 1 and bool(states) and {"ESTABLISHED", "RELATED"}.issuperset(states[0])


def added_rules(family: str, listed: Mapping[str, list[str]] | None) -> list[tuple[str, str, str]]:
    """What lets in by ufw's own files and is not in the packaged ones; of ICMP nothing, which differs by release.

    Args:
        family: "4" or "6".
        listed: the chains that all of ufw's files make, as the kernel lists them; None where that could not be tried.

    Returns:
        (file, chain, rule).
    """
    suffix = "6" if family == "6" else ""
    files = {ETC / f"{part}{suffix}.rules": TEMPLATES / f"{part}{suffix}.rules" for part in ("before", "after")}
    texts = {path: (read(path), read(packaged)) for path, packaged in files.items() if packaged.exists()}
    if all(text == packaged for text, packaged in texts.values()):
        return []
    known = "\n".join(packaged for _, packaged in texts.values())
    chains, by_package = listed, tried(family, head_of(family) + known + "\n") if listed is not None else None
    if chains is None or by_package is None:
        chains, by_package = (parse_rules(text)[1] for text in ("\n".join(text for text, _ in texts.values()), known))
    found = []
    starts = [f"{PREFIX[family]}{part}-input" for part in ("before", "after")]
    for chain in [*starts, *led_to(chains, starts)]:
        if chain.startswith(f"{PREFIX[family]}user-"):  # what stands there is ufw's rules, whatever another file adds
            continue
        for rule in opening(chains.get(chain, [])):
            if rule not in by_package.get(chain, []) and not re.search(r"(^| )-p (ipv6-)?icmp(v6)?( |$)", rule):
                found.append(_written({str(path): text for path, (text, _) in texts.items()}, chain, rule))
    return found


def _written(texts: Mapping[str, str], chain: str, rule: str) -> tuple[str, str, str]:
    """Where a rule stands, and how: the kernel lists what somebody wrote in another way, and one with several addresses
    as several."""
    named = ""
    for path, text in texts.items():
        for line in section(text):
            words = line.split(None, 2)
            if len(words) < 3 or words[0] not in ("-A", "-I") or words[1] != chain:
                continue
            named = named or path
            if parse_rules(f"*filter\n{line}")[1].get(chain) == [rule]:
                return path, chain, words[2]
    return named or str(ETC), chain, rule


def led_to(chains: Mapping[str, list[str]], starts: Iterable[str] = ("INPUT",)) -> list[str]:
    """The chains that INPUT, or others, lead to, near or far; from INPUT without ufw's own."""
    waiting = list(starts)
    found: list[str] = []
    passed = () if "INPUT" not in waiting else tuple(PREFIX.values())
    while waiting:
        for rule in chains.get(waiting.pop(), []):
            target = re.search(r"(?:^|\s)(?:-j|-g) (\S+)", rule)
            name = target[1] if target else ""
            if name in chains and name not in found and not (passed and name.startswith(passed)):
                found.append(name)
                waiting.append(name)
    return found


def head_of(family: str) -> str:
    """The chains that ufw makes itself before it loads its files."""
    return "*filter\n" + "".join(f":{name} - [0:0]\n" for name in ufw_chains(family)) + "COMMIT\n"


def check_files(state: State, family: str) -> None:
    """Have ufw's files loaded where nobody is: all at once, apart only if that fails."""
    suffix = "6" if family == "6" else ""
    paths = [ETC / f"{part}{suffix}.rules" for part in ("before", "after", "user")]
    texts = {path: read(path) for path in paths}
    head = head_of(family)
    whole = head + "\n".join(texts.values()) + "\n"
    listed = tried(family, whole)
    if listed is not None:
        state.listed[family] = listed
        return
    program = iptables(f"v{family}", "restore")
    if not complaint(program, whole):
        return
    for path, text in texts.items():
        said = complaint(program, head + text + "\n")
        if said:
            state.broken[path] = fault(said, head.count("\n"))


def tried(family: str, text: str) -> dict[str, list[str]] | None:
    """Load rules in a network namespace of their own; return the chains as the kernel lists them there.

    None where they do not load there, or nothing can be tried: a set of addresses that they name is not there, a
    container may have no namespaces. Raises Fault if it hangs.
    """
    restore, save = (iptables(f"v{family}", verb) for verb in ("restore", "save"))
    result = tried_nowhere(f"{restore} --noflush && {save} -t filter", [restore, save], text)
    if result.returncode == HUNG:
        raise Fault(f"{result.stderr} to read ufw's files")
    return None if result.returncode else parse_rules(result.stdout)[1]


def complaint(program: str, text: str) -> str:
    """What iptables-restore says against rules; "" if it takes them, or is not installed. Raises Fault if it hangs."""
    result = run(program, "--noflush", "--test", text=text)
    if result.returncode == HUNG:
        raise Fault(f"{result.stderr} to read ufw's files")
    if result.returncode in (0, MISSING):
        return ""
    return result.stderr.strip() or f"{program} ends with {result.returncode}"


def fault(text: str, offset: int) -> str:
    """iptables-restore's complaint on one line, with the line number of the file."""
    line = " ".join(text.split())
    return re.sub(r"line:? (\d+)", lambda found: f"line {max(1, int(found[1]) - offset)}", line)


def ufw_chains(family: str) -> list[str]:
    """All chains that ufw's files may jump to."""
    names = [f"{hook}-{way}" for hook in HOOKS for way in DIRECTIONS.values()]
    names += [f"{kind}-{way}" for kind in ("user", "user-logging", "skip-to-policy") for way in DIRECTIONS.values()]
    names += ["logging-deny", "logging-allow", "user-limit", "user-limit-accept", "not-local"]
    return [PREFIX[family] + name for name in names]
