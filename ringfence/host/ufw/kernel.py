"""The kernel compared with ufw's files, and put right in one transaction."""

from __future__ import annotations

from ringfence.host.files import read
from ringfence.host.ufw.state import (
    DIRECTIONS,
    ETC,
    HOLD,
    HOOKS,
    PREFIX,
    USER,
    Live,
    State,
    canonical,
    parse_rules,
    section,
)


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
        lines += [
            f"~ kernel: {chain} ({label}) is not what ufw's files make it: loaded again"
            for chain in changed_framework(state, family)
        ]
    return lines


def policies(state: State) -> dict[str, str]:
    """Policies of the built-in chains; what goes out and what is forwarded is as ufw has it configured."""
    given = {"INPUT": "DROP", **{builtin: configured(state.conf, builtin) for builtin in ("OUTPUT", "FORWARD")}}
    return {builtin: "DROP" if policy == "REJECT" else policy for builtin, policy in given.items()}


def configured(conf: dict[str, str], builtin: str) -> str:
    """What ufw is told to do with what no rule decides: ACCEPT, DROP or REJECT."""
    default = "ACCEPT" if builtin == "OUTPUT" else "DROP"
    return conf.get(f"DEFAULT_{builtin}_POLICY", default).upper()


def expected_hooks(family: str, builtin: str) -> list[str]:
    return [f"-j {PREFIX[family]}{hook}-{DIRECTIONS[builtin]}" for hook in HOOKS]


def hooks(live: Live, family: str, builtin: str) -> list[str]:
    """ufw's jumps in a built-in chain, in order; those of the hold are none."""
    own = f"-j {PREFIX[family]}"
    return [r for r in live.chains.get(builtin, []) if r.startswith(own) and not r.startswith(f"-j {HOLD}")]


def changed_framework(state: State, family: str) -> list[str]:
    """Chains that ufw makes around the user's, and that are not as it makes them."""
    live = state.live[family].chains
    same = [chain for chain, rules in made(state, family).items() if live.get(chain, []) == list(map(canonical, rules))]
    of_files = framework(family)
    if family in state.listed:
        same += [chain for chain in of_files if live.get(chain, []) == with_users(state.listed[family], family, chain)]
    else:  # written and listed rules differ in too many ways: what is left is how many there are
        same += [chain for chain, count in of_files.items() if len(live.get(chain, [])) == count]
    return [chain for chain in [*of_files, *made(state, family)] if chain not in same]


def made(state: State, family: str) -> dict[str, list[str]]:
    """Chains that stand in no file: ufw fills them by its policies (`/lib/ufw/ufw-init-functions`)."""
    found: dict[str, list[str]] = {}
    for builtin, way in DIRECTIONS.items():
        policy = "DROP" if builtin == "INPUT" else configured(state.conf, builtin)
        new = [f"-p {proto} -m conntrack --ctstate NEW -j ACCEPT" for proto in ("tcp", "udp")]
        chains = {
            "reject": ["-j REJECT"] if policy == "REJECT" else [],
            "track": new if policy == "ACCEPT" else [],
            "skip-to-policy": [f"-j {policy}"],
        }
        found |= {f"{PREFIX[family]}{kind}-{way}": rules for kind, rules in chains.items()}
    return found


def with_users(listed: dict[str, list[str]], family: str, chain: str) -> list[str]:
    """The rules of a chain once ufw has hooked in the user's."""
    return [
        *listed.get(chain, []),
        *(f"-j {PREFIX[family]}user-{way}" for way in DIRECTIONS.values() if chain == f"{PREFIX[family]}before-{way}"),
    ]


def framework(family: str) -> dict[str, int]:
    """Chains of before.rules and after.rules, and how many rules each has once ufw has hooked in its own."""
    suffix = "6" if family == "6" else ""
    counts: dict[str, int] = {}
    for part in ("before", "after"):
        for chain, rules in parse_rules(read(ETC / f"{part}{suffix}.rules"))[1].items():
            if of_frame(chain, family):
                counts[chain] = counts.get(chain, 0) + len(rules)
    for way in DIRECTIONS.values():
        name = f"{PREFIX[family]}before-{way}"
        if name in counts:
            counts[name] += 1  # the jump to the user's chain
    return counts


# Chains that ufw fills itself, from user.rules and from its policies: whoever declares one of them in before.rules or
# after.rules as well (a rule there jumps to it) does not say what stands in it.
FILLED = ("user-", "reject-", "track-", "skip-to-policy-")


def of_frame(chain: str, family: str) -> bool:
    """Whether a chain that before.rules or after.rules names is filled by them alone."""
    name = chain.removeprefix(PREFIX[family])
    return name != chain and "logging" not in name and not name.startswith(FILLED)


def kernel_text(state: State, family: str) -> str:
    """The transaction that puts policies, hooks and ufw's framework chains right, where they are not."""
    live, prefix = state.live[family], PREFIX[family]
    lines = ["*filter"]
    lines += [f":{builtin} {policy} [0:0]" for builtin, policy in policies(state).items()]
    for builtin in DIRECTIONS:
        if hooks(live, family, builtin) != expected_hooks(family, builtin):
            lines += [f"-D {builtin} {rule}" for rule in hooks(live, family, builtin)]
            lines += [f"-A {builtin} {rule}" for rule in expected_hooks(family, builtin)]
    counts, changed = framework(family), changed_framework(state, family)
    for chain, rules in made(state, family).items():
        if chain in changed:
            lines += [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules)]
    if any(chain in changed for chain in counts):
        suffix = "6" if family == "6" else ""
        lines += [f":{chain} - [0:0]" for chain in counts]
        for part in ("before", "after"):
            rules = [line for line in section(read(ETC / f"{part}{suffix}.rules")) if line.startswith(("-A ", "-I "))]
            lines += [line for line in rules if line.split()[1] in counts]
        lines += [
            f"-A {prefix}before-{way} -j {prefix}user-{way}"
            for way in DIRECTIONS.values()
            if f"{prefix}before-{way}" in counts
        ]
    return "\n".join([*lines, "COMMIT", ""])
