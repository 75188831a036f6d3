"""Which capabilities a container can be given without being given the host."""

from __future__ import annotations

import difflib

# Every capability of capabilities(7); those with a reason reach beyond the container.
CAPABILITIES = {
    "AUDIT_CONTROL": "would switch off the host's audit log",
    "AUDIT_READ": "would read the host's audit log",
    "AUDIT_WRITE": "",
    "BLOCK_SUSPEND": "",
    "BPF": "would load programs into the host's kernel",
    "CHECKPOINT_RESTORE": "would take over processes and their memory by checkpoints",
    "CHOWN": "",
    "DAC_OVERRIDE": "",
    "DAC_READ_SEARCH": "would read every file of the host by its handle",
    "FOWNER": "",
    "FSETID": "",
    "IPC_LOCK": "",
    "IPC_OWNER": "",
    "KILL": "",
    "LEASE": "",
    "LINUX_IMMUTABLE": "",
    "MAC_ADMIN": "would change the host's AppArmor, SELinux or Smack policy",
    "MAC_OVERRIDE": "would pass the host's AppArmor, SELinux or Smack policy",
    "MKNOD": "",
    "NET_ADMIN": "",
    "NET_BIND_SERVICE": "",
    "NET_BROADCAST": "",
    "NET_RAW": "",
    "PERFMON": "would watch the host's kernel and all of its processes",
    "SETFCAP": "",
    "SETGID": "",
    "SETPCAP": "",
    "SETUID": "",
    "SYSLOG": "would read the host's kernel log and the kernel's addresses",
    "SYS_ADMIN": "would hand the host to the container",
    "SYS_BOOT": "would start another kernel on the host",
    "SYS_CHROOT": "",
    "SYS_MODULE": "would load modules into the host's kernel",
    "SYS_NICE": "",
    "SYS_PACCT": "",
    "SYS_PTRACE": "would take over what Docker starts in it, at health checks and docker exec, with its open files",
    "SYS_RAWIO": "would read and write the host's memory and devices",
    "SYS_RESOURCE": "",
    "SYS_TIME": "",
    "SYS_TTY_CONFIG": "",
    "WAKE_ALARM": "",
}
# With these, frames with any address leave the container.
FORGING = frozenset({"NET_ADMIN", "NET_RAW"})


def capability_fault(name: str) -> str:
    """Say why a capability cannot be given to a container and what to do about it, "" where it can."""
    if name == "ALL":
        return "would hand the host to the container (name the capabilities that it needs)"
    bare = name.upper().removeprefix("CAP_")
    if reason := CAPABILITIES.get(bare):
        return f"{reason} (remove it, or name the capabilities that it needs in its place)"
    if name in CAPABILITIES:
        return ""
    near = [bare] if bare in CAPABILITIES else difflib.get_close_matches(bare, CAPABILITIES, n=1, cutoff=0.6)
    fix = f"write it as {near[0] if near else 'NET_BIND_SERVICE'}: capitals, without CAP_"
    return f"is not a capability ({fix})"
