"""The controller's half of ``ringfence_role``: what a role wants goes to the host, what it answers becomes the result.

Needs ansible-core only, so that a role can be copied alone. The host's half is ``library/ringfence_role.py`` beside
this folder; it is sent as it is, in one command, on standard input: the desired state of a role may hold secrets.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import json
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

RENDERING: dict[str, Any] = {"escape_backslashes": False, "preserve_trailing_newlines": True}
try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19 every text was, and what looked like data became data
    trust_as_template = str
    RENDERING["convert_data"] = False


LOADER = (
    "import gc,json,sys; gc.set_threshold(100000); r=json.load(sys.stdin); "  # it soon ends, with all its garbage
    'exec(compile(r["program"], "ringfence", "exec"), {"__name__": "__main__", "REQUEST": r})'
)
GUARD = "/usr/local/sbin/ringfence-guard"
DEFAULT_SECONDS = {"seconds": 45, "apply_seconds": 300}
PORT_TIMEOUT_SECONDS = 5
# Seconds: until another run on the host is no longer waited for, and between two words about it. No pause between two
# questions: the host itself waits for the other run before it answers that there is one.
BUSY_SECONDS, BUSY_REMINDS = 3600.0, 10.0
HOW_TO_GO_ON = (
    "nothing was changed: this is what would go. To take it off, run again with -e ringfence_remove=yes "
    "(docs/remove.md says what stays)"
)
NOT_FOUND = 127  # a shell's exit code
NO_PYTHON = "python3 is missing there: install it by hand (apt-get install python3), then run again"
NEW_CONNECTION = "-o ControlMaster=no -o ControlPath=none"

display = Display()


class RoleFolder:
    """The folder of a role, with what `ringfence.role` reads from it for pyinfra."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = directory.name
        if not (directory / "vars" / "main.yml").is_file():
            raise AnsibleActionFail(f"there is no role {self.name} in {directory.parent} (copy it there)")
        self.constants = self.read("vars/main.yml")

    def read(self, path: str) -> dict[str, Any]:
        """Return a YAML file of the role."""
        return dict(yaml.safe_load(self.text(path)) or {})

    def text(self, path: str) -> str:
        """Return the text of a file of the role."""
        return (self.directory / path).read_text(encoding="utf-8")

    def beside(self, name: str) -> RoleFolder:
        """Return a neighbouring role."""
        return self if name == self.name else RoleFolder(self.directory.parent / name)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """Compare, show, and unless this is a check, bring about."""

    _VALID_ARGS = frozenset({"name", "preflight", "remove", "confirmed", "share"})

    def run(self, tmp: Any = None, task_vars: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return ``changed``, ``changes`` and, if asked for, ``diff``.

        Raises:
            AnsibleActionFail: the role refuses, or a step failed; nothing that may hold a secret is in the message.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = dict(task_vars or {})
        if self._task.args.get("remove"):
            return result | self._remove([str(name) for name in self._task.args["remove"]])
        names = [str(name) for name in self._task.args.get("preflight") or [self._task.args.get("name")]]
        here = Path(self._task._role._role_path)
        folders = [RoleFolder(here.parent / name) for name in names]
        is_preflight = bool(self._task.args.get("preflight"))
        if self._task.args.get("share"):
            return result | self._share(folders[0])
        for folder in folders:
            if said := misspelt(folder.name, self._vars, {**folder.constants, **folder.read("defaults/main.yml")}):
                raise AnsibleActionFail(f"role {folder.name}: {said}")
        if is_preflight:
            self._must_fit(folders)
        wishes = {folder.name: self._wish(folder) for folder in folders}
        diff = bool(self._task.diff) and not is_preflight
        called = self._vars.get("ringfence_called") or {}
        asked = {"wishes": {role: without_contents(w) for role, w in wishes.items()}, "diff": diff, "called": called}
        found = self._ask("survey", asked)
        host = self._vars.get("inventory_hostname")
        for line in self._vars.get("ringfence_notices") or [] if is_preflight else []:
            display.warning(line)
        for role, difference in found.items():
            for line in difference["notices"]:
                display.warning(f"{host}: {role}: {line}")
        refusals = [f"{role}: {line}" for role, difference in found.items() for line in difference["refusals"]]
        if refusals:
            raise AnsibleActionFail("\n".join([f"nothing was changed on {host}:", *refusals]))
        changes = {role: pending(difference) for role, difference in found.items()}
        if is_preflight:
            return {**result, "changed": False, "pending": {role: lines for role, lines in changes.items() if lines}}
        [folder] = folders
        result |= {"changed": bool(changes[folder.name]), "changes": changes[folder.name]}
        if diff:
            result["diff"] = diffs(wishes[folder.name], found[folder.name], changes[folder.name])
        if result["changed"] and not self._task.check_mode:
            result["progress"] = self._bring(folder, wishes[folder.name])
        return result

    # -- what hosts tell one another

    def _share(self, folder: RoleFolder) -> dict[str, Any]:
        """Have the host say what others are to know of it; it becomes a fact, from which `_told` reads it."""
        asked = {"role": folder.name, "want": without_contents(self._wish(folder)), "make": not self._task.check_mode}
        found = self._ask("share", asked)
        return {
            "changed": bool(found["changes"]),
            "changes": found["changes"],
            "ansible_facts": {f"ringfence_shared_{folder.name}": found["shared"]},
        }

    def _told(self, folder: RoleFolder) -> dict[str, Any]:
        """Return the variable in which a role finds what its program shares on the other hosts, with all of that."""
        variable = folder.constants.get(f"{folder.name}_shares")
        if not variable:
            return {}
        fact, every = f"ringfence_shared_{folder.name}", self._vars.get("hostvars") or {}
        facts = {host: (every[host].get("ansible_facts") or {}).get(fact) for host in every}
        given = self._templar.template(self._vars.get(str(variable)) or {})
        return {str(variable): {**given, **{host: said for host, said in facts.items() if said is not None}}}

    # -- what a role wants

    def _must_fit(self, folders: list[RoleFolder]) -> None:
        """Ansible checks a role's variables when the role begins: for most of them after the first change."""
        problems = []
        for folder in folders:
            options = folder.read("meta/argument_specs.yml")["argument_specs"]["main"].get("options") or {}
            variables = self._variables(folder)
            given = {name: self._templar.template(variables[name]) for name in options if name in variables}
            found = ArgumentSpecValidator(options).validate(given, validate_role_argument_spec=True)
            secret = [name for name, option in options.items() if option.get("no_log")]
            problems += [f"{folder.name}: {discreet(message, secret)}" for message in found.error_messages]
        if problems:
            raise AnsibleActionFail("\n".join(problems))

    def _variables(self, folder: RoleFolder) -> dict[str, Any]:
        defaults = self._loader.load_from_file(str(folder.directory / "defaults" / "main.yml"))
        return {**(defaults or {}), **self._vars, **folder.constants, **self._told(folder)}

    def _wish(self, folder: RoleFolder) -> dict[str, Any]:
        """Return what `ringfence.role.Role.wanted` returns for pyinfra, with everything rendered."""
        variables = self._variables(folder)
        files = []
        for entry in folder.constants[f"{folder.name}_files"]:
            if "template" in entry:
                content = self._render(folder, entry["template"], variables)
            else:
                content = folder.text(f"files/{entry['src']}")
            files.append(
                {
                    "path": entry["dest"],
                    "content": content,
                    "sha256": hashlib.sha256(content.encode()).hexdigest(),
                    "mode": entry["mode"],
                    "user": entry.get("owner", "root"),
                    "group": entry.get("group", "root"),
                }
            )
        owner = self._owner(folder)
        text = self._render(folder, "desired.json.j2", variables)
        try:
            desired = json.loads(text)
        except ValueError as error:
            # Not the text itself: it may hold secrets.
            raise AnsibleActionFail(
                f"role {folder.name}: templates/desired.json.j2 does not render to JSON: {error}"
            ) from None
        return {
            "packages": list(self._templar.template(variables.get(f"{folder.name}_packages") or [])),
            "files": files,
            "program": owner.text(f"files/ringfence-{owner.name}"),
            "desired": desired,
        }

    def _owner(self, folder: RoleFolder) -> RoleFolder:
        """Return the role whose program brings about what this one wants."""
        return folder.beside(str(folder.constants.get(f"{folder.name}_program", folder.name)))

    def _render(self, folder: RoleFolder, template: str, variables: Mapping[str, Any]) -> str:
        templar = self._templar.copy_with_new_env(
            searchpath=[str(folder.directory / "templates")], available_variables=variables
        )
        text = trust_as_template(folder.text(f"templates/{template}"))
        return str(templar.template(text, **RENDERING))

    # -- the host

    def _ask(self, verb: str, desired: Mapping[str, Any]) -> Any:
        """Return the host's answer; while another run is at work there, say so and ask again.

        Raises:
            AnsibleActionFail: it failed, or the other run does not end; with the host's own words.
        """
        begun, spoke = time.monotonic(), float("-inf")
        while True:
            answer = json.loads(self._send(verb, desired)["stdout"])
            if not isinstance(answer.get("busy"), str):
                return answer
            waited = time.monotonic() - begun
            if waited > BUSY_SECONDS:
                raise AnsibleActionFail(answer["busy"])
            if time.monotonic() - spoke >= BUSY_REMINDS:
                spoke = time.monotonic()
                host = self._vars.get("inventory_hostname")
                display.display(f"{host}: waits, for {waited:.0f} of at most {BUSY_SECONDS:.0f} s: {answer['busy']}")

    def _send(self, verb: str, desired: Mapping[str, Any]) -> dict[str, Any]:
        """Run the host's half.

        Raises:
            AnsibleActionFail: it failed; with its own words.
        """
        program = Path(__file__).parents[1].joinpath("library", "ringfence_role.py").read_text(encoding="utf-8")
        request = json.dumps({"program": program, "arguments": [verb], "desired": desired}) + "\n"
        answer: dict[str, Any] = self._low_level_execute_command(
            f"python3 -I -c {shlex.quote(LOADER)}", in_data=request.encode()
        )
        if answer["rc"]:
            said = answer["stderr"].strip() or f"the host did not answer (exit code {answer['rc']})"
            raise AnsibleActionFail(f"{said}\n{NO_PYTHON}" if answer["rc"] == NOT_FOUND else said)
        return answer

    def _bring(self, folder: RoleFolder, wish: Mapping[str, Any]) -> list[str]:
        """Change what differs; returns what the program said while it worked."""
        window = self._window() if folder.constants.get(f"{folder.name}_guarded") else None
        owner = self._owner(folder)
        program = next(
            entry["dest"]
            for entry in owner.constants[f"{owner.name}_files"]
            if entry.get("src") == f"ringfence-{owner.name}"
        )
        answer = self._send("bring", {"role": folder.name, "want": wish, "program": program, "window": window})
        done, progress = json.loads(answer["stdout"]), list(answer["stderr_lines"])
        if done.get("asks"):
            desired = {**wish["desired"], "answer": self._answer(folder, done["asks"])}
            given = {"role": folder.name, "program": program, "desired": desired, "window": window, "hears": True}
            answer = self._send("apply", given)
            if json.loads(answer["stdout"] or "{}").get("asks"):
                raise AnsibleActionFail(f"role {folder.name}: its program asks again for what it was told")
            progress += answer["stderr_lines"]
        if window is not None and done["applied"]:
            self._confirm(window)
        return progress

    def _answer(self, folder: RoleFolder, asked: Any) -> dict[str, Any]:
        """Answer what a role's program asks, here on the controller, as `ringfence.answering` does for pyinfra.

        Raises:
            AnsibleActionFail: it cannot be answered; no secret is in the message.
        """
        path = folder.directory / "answer.py"
        spec = importlib.util.spec_from_file_location(f"ringfence_answer_{folder.name}", path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise AnsibleActionFail(f"role {folder.name}: its program asks something, and there is no {path} to answer")
        given = self._variables(folder)
        options = folder.read("meta/argument_specs.yml")["argument_specs"]["main"].get("options") or {}
        variables = {name: self._templar.template(given[name]) for name in options if name in given}
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            return dict(module.answer(asked, variables))
        except ModuleNotFoundError as error:
            raise AnsibleActionFail(
                f"role {folder.name}: {error.name} is missing on this machine (pip install {error.name})"
            ) from None
        except Exception as error:
            # Not the words of an error that is not the role's own: they may hold what was given.
            known = type(error).__name__ == "AnswerError"
            said = str(error) if known else f"an error in {path}, please report it: {type(error).__name__}"
            raise AnsibleActionFail(f"role {folder.name}: {said}") from None

    # -- taking roles off

    def _remove(self, names: list[str]) -> dict[str, Any]:
        """List what would go; unless this is a check, take it off if the user has said so."""
        host = self._vars.get("inventory_hostname")
        here = Path(self._task._role._role_path)
        leaving = [self._leaving(RoleFolder(here.parent / name)) for name in names]
        found = self._ask("removal", {"roles": leaving})
        for role, each in found.items():
            for line in each["notices"]:
                display.warning(f"{host}: {role}: {line}")
        refusals = [f"{role}: {line}" for role, each in found.items() for line in each["refusals"]]
        if refusals:
            raise AnsibleActionFail("\n".join([f"nothing was changed on {host}:", *refusals]))
        lines = [
            f"{role}: {line}"
            for role, each in found.items()
            for line in [*each["changes"], *(f"- file {path}" for path in each["files"])]
        ]
        for line in lines:
            display.display(f"{host}: {line}")
        result: dict[str, Any] = {"changed": bool(lines), "changes": lines}
        if not lines or self._task.check_mode:
            return result
        if str(self._task.args.get("confirmed")).strip().lower() not in ("yes", "true"):
            raise AnsibleActionFail(HOW_TO_GO_ON)
        guarded = any(each["guarded"] and found[each["role"]]["changes"] for each in leaving)
        window = self._window() if guarded else None
        progress = list(self._send("remove", {"roles": leaving, "window": window})["stderr_lines"])
        if window is not None:
            self._confirm(window)
        return {**result, "progress": progress + list(self._send("clear", {"roles": leaving})["stderr_lines"])}

    def _leaving(self, folder: RoleFolder) -> dict[str, Any]:
        """Return what `ringfence.role.Role.leaving` returns for pyinfra."""
        entries = folder.constants[f"{folder.name}_files"]
        name = f"ringfence-{folder.name}"
        return {
            "role": folder.name,
            "program": folder.text(f"files/{name}") if any(entry.get("src") == name for entry in entries) else "",
            "guarded": bool(folder.constants.get(f"{folder.name}_guarded")),
            "files": [entry["dest"] for entry in entries if "ringfence" in entry["dest"]],
        }

    # -- the guard's window

    def _window(self) -> dict[str, Any]:
        """Return a window of this run alone: its name, and how long applying and confirming may take."""
        wanted = {name: self._vars.get(f"guard_{name}") or default for name, default in DEFAULT_SECONDS.items()}
        given = {name: int(self._templar.template(value)) for name, value in wanted.items()}
        return {"name": secrets.token_hex(8), "seconds": given["seconds"], "limit": given["apply_seconds"]}

    def _confirm(self, window: Mapping[str, Any]) -> None:
        """Disarm the guard over a new connection, or have it restore the old state at once.

        The connection that made the change proves nothing: firewalls let established connections live.
        """
        why = "the change would have locked you out, so it is taken back"
        try:
            with self._new_connection():
                self._must_answer()
                answer = self._low_level_execute_command(f"{GUARD} confirm --window {window['name']}")
            if answer["rc"]:
                # Whoever answers has not locked anybody out.
                why = "the change is taken back"
                raise AnsibleActionFail(answer["stderr"].strip() or "the guard did not confirm")
        except (AnsibleError, OSError) as error:
            raise AnsibleActionFail(f"{why}: {error}\n{self._restore(window)}") from None

    def _restore(self, window: Mapping[str, Any]) -> str:
        """Take the change back over the connection that made it; returns what became of it."""
        try:
            answer = self._low_level_execute_command(f"{GUARD} restore --window {window['name']}")
            if answer["rc"] == 0:
                return "the old state is back"
            said = answer["stderr"].strip()
        except AnsibleError as error:
            said = str(error)
        return f"the host itself restores the old state within {window['seconds']} s of the change ({said})"

    @contextlib.contextmanager
    def _new_connection(self) -> Iterator[None]:
        """Let commands go over a connection of their own, beside the one that stands."""
        if self._connection.transport != "ssh":
            if self._connection.transport != "local":
                self._connection.reset()
            yield
            return
        usual = self._connection.get_option("ssh_args")
        # OpenSSH takes the first value of an option.
        self._connection.set_option("ssh_args", f"{NEW_CONNECTION} {usual or ''}".strip())
        try:
            yield
        finally:
            self._connection.set_option("ssh_args", usual)

    def _must_answer(self) -> None:
        """Raises OSError unless every port that must stay open answers this machine.

        The new connection has proved the port that it dialled and, where that is forwarded, the one of the host at
        which it arrived.
        """
        if self._connection.transport == "local":
            return
        way = self._way()
        ports = [int(port) for port in self._templar.template(self._vars.get("guard_ports") or [])]
        left = [port for port in ports if port != way.port]
        if left:
            words = self._low_level_execute_command("echo $SSH_CONNECTION", sudoable=False)["stdout"].split()
            left = [port for port in left if words[-1:] != [str(port)]]
        if left and way.proxy:
            host, these = self._vars.get("inventory_hostname"), ", ".join(map(str, left))
            display.warning(
                f"{host}: guard_ports: {these} cannot be tried: this machine comes in through {way.proxy}, which leads "
                "to SSH only"
            )
            return
        for port in left:
            try:
                socket.create_connection((way.address, port), timeout=PORT_TIMEOUT_SECONDS).close()
            except OSError as error:
                raise OSError(
                    f"port {port} of {way.address}, which must stay open (guard_ports), does not answer: {error}"
                ) from error

    def _way(self) -> Way:
        """Return how this machine comes to the host; of ssh what its configuration makes of the name."""
        option = self._connection.get_option
        host, port = str(option("host") or self._vars.get("inventory_hostname")), option("port")
        if self._connection.transport != "ssh":
            return Way(host, int(port or 22))
        words = [
            word
            for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")
            for word in shlex.split(option(name) or "")
        ]
        chosen = ["-p", str(port)] if port else []
        command = [option("ssh_executable") or "ssh", "-G", *chosen, *words, host]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise OSError(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")
        said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        proxies = [said[key] for key in ("proxyjump", "proxycommand") if said.get(key, "none") != "none"]
        return Way(said["hostname"], int(said["port"]), proxies[0] if proxies else "")


class Way(NamedTuple):
    """The address and port that this machine dials; with a jump host or a command in between, that dials it."""

    address: str
    port: int
    proxy: str = ""


def misspelt(role: str, given: Iterable[str], known: Iterable[str]) -> str:
    """Return what is wrong where a variable is almost one of a role's, as `ringfence.role` does for pyinfra."""
    names = list(known)
    for name in given:
        prefix = name.partition("_")[0]
        if prefix != role and difflib.SequenceMatcher(None, prefix, role).ratio() < 0.8:
            continue
        if name not in names and (near := difflib.get_close_matches(name, names, n=1, cutoff=0.85)):
            return f"'{name}' is no variable of it (did you mean '{near[0]}'? one of your own needs another name)"
    return ""


def discreet(message: str, secret: list[str]) -> str:
    """Return what is wrong with a variable; of one that holds secrets only that something is."""
    names = [name for name in secret if name in message]
    return f"{names[0]} has not the type that the role documents (its value is not shown)" if names else message


def without_contents(wish: Mapping[str, Any]) -> dict[str, Any]:
    """Return a wish as it is compared: files by their digests."""
    return {
        **wish,
        "files": [{key: value for key, value in file.items() if key != "content"} for file in wish["files"]],
    }


def pending(difference: Mapping[str, Any]) -> list[str]:
    """Return every pending change of a role, a line each, in the words of `ringfence.facts.survey`."""
    return [
        *(f"+ package {name}" for name in difference["packages"]),
        *(f"{'+' if how == 'missing' else '~'} file {path} ({how})" for path, how in difference["files"].items()),
        *difference["changes"],
    ]


def diffs(wish: Mapping[str, Any], difference: Mapping[str, Any], lines: list[str]) -> list[dict[str, str]]:
    """Return what --diff shows: the lines, and the texts of files that everybody may read and nobody executes."""
    shown = [{"prepared": "".join(f"{line}\n" for line in lines)}] if lines else []
    for file in wish["files"]:
        mode = int(file["mode"], 8)
        if difference["files"].get(file["path"]) in ("missing", "content") and mode & 0o004 and not mode & 0o111:
            headers = {"before_header": file["path"], "after_header": file["path"]}
            shown.append({**headers, "before": difference["before"][file["path"]], "after": file["content"]})
    return shown
