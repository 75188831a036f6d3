"""The kernel compared with ufw's files, and put right in one transaction."""

from __future__ import annotations

from ringfence.host.files import read
from ringfence.host.ufw.state import DIRECTIONS, ETC, HOLD, HOOKS, PREFIX, USER, Live, State, parse_rules


def kernel_drift(state: State) -> list[str]:
    """What the kernel has otherwise than ufw's files say, one line each."""
    lines = []
    for family in state.families:
        live, label = state.live[family], f"v{family}"
        if not state.loaded(family):
            lines.append(f"~ kernel: ufw is not loaded ({label}): loaded")
            continue
        for chain, rules in state.files[family].items():
            if live.chains.get(chain) != rules:
                lines.append(f"~ kernel: {chain} ({label}) differs from {USER[family]}: loaded again")
        for builtin, policy in policies(state).items():
            if live.policies.get(builtin) != policy:
                lines.append(f"~ kernel: policy of {builtin} ({label}) {live.policies.get(builtin, '-')} → {policy}")
            if hooks(live, family, builtin) != expected_hooks(family, builtin):
                lines.append(
                    f"~ kernel: {builtin} ({label}) does not pass through all of ufw's chains: hooked in again"
                )
        for chain, count in framework(family).items():
            if len(live.chains.get(chain, [])) != count:
                found = len(live.chains.get(chain, []))
                lines.append(f"~ kernel: {chain} ({label}) has {found} rules instead of {count}: loaded again")
    return lines


def policies(state: State) -> dict[str, str]:
    """Policies of the built-in chains; what is forwarded is left as ufw has it configured."""
    forward = state.conf.get("DEFAULT_FORWARD_POLICY", "DROP").upper()
    return {"INPUT": "DROP", "OUTPUT": "ACCEPT", "FORWARD": "DROP" if forward == "REJECT" else forward}


def expected_hooks(family: str, builtin: str) -> list[str]:
    return [f"-j {PREFIX[family]}{hook}-{DIRECTIONS[builtin]}" for hook in HOOKS]


def hooks(live: Live, family: str, builtin: str) -> list[str]:
    """ufw's jumps in a built-in chain, in order; those of the hold are none."""
    own = f"-j {PREFIX[family]}"
    return [r for r in live.chains.get(builtin, []) if r.startswith(own) and not r.startswith(f"-j {HOLD}")]


def framework(family: str) -> dict[str, int]:
    """Chains of before.rules and after.rules, and how many rules each has once ufw has hooked in its own."""
    suffix = "6" if family == "6" else ""
    counts: dict[str, int] = {}
    for part in ("before", "after"):
        for chain, rules in parse_rules(read(ETC / f"{part}{suffix}.rules"))[1].items():
            if chain.startswith(PREFIX[family]) and "logging" not in chain:
                counts[chain] = counts.get(chain, 0) + len(rules)
    for way in DIRECTIONS.values():
        name = f"{PREFIX[family]}before-{way}"
        if name in counts:
            counts[name] += 1  # the jump to the user's chain
    return counts


def kernel_text(state: State, family: str) -> str:
    """The transaction that puts policies, hooks and ufw's framework chains right, where they are not."""
    live, prefix = state.live[family], PREFIX[family]
    lines = ["*filter"]
    lines += [f":{builtin} {policy} [0:0]" for builtin, policy in policies(state).items()]
    for builtin in DIRECTIONS:
        if hooks(live, family, builtin) != expected_hooks(family, builtin):
            lines += [f"-D {builtin} {rule}" for rule in hooks(live, family, builtin)]
            lines += [f"-A {builtin} {rule}" for rule in expected_hooks(family, builtin)]
    counts = framework(family)
    if any(len(live.chains.get(chain, [])) != count for chain, count in counts.items()):
        suffix = "6" if family == "6" else ""
        lines += [f":{chain} - [0:0]" for chain in counts]
        for part in ("before", "after"):
            lines += [line for line in section(read(ETC / f"{part}{suffix}.rules")) if line.startswith(f"-A {prefix}")]
        lines += [
            f"-A {prefix}before-{way} -j {prefix}user-{way}"
            for way in DIRECTIONS.values()
            if f"{prefix}before-{way}" in counts
        ]
    return "\n".join([*lines, "COMMIT", ""])


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
