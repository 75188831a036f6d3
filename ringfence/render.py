"""The one Jinja environment with Ansible's semantics, for templates that both engines render.

pyinfra's own ``files.template`` differs from Ansible's ``template`` in undefined values, ``None``, block trimming
and trailing newlines. Roles therefore render here, and a test renders every template with ansible-core too and
compares the bytes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jinja2
import jinja2.bccache


class RenderError(Exception):
    """A template could not be rendered; the message names the template and the variable."""


class _Undefined(jinja2.ChainableUndefined, jinja2.StrictUndefined):
    """Ansible's undefined: ``a.b.c | default(1)`` works when ``a`` is missing, printing it does not."""


def _print_none_as_nothing(value: object) -> object:
    return "" if value is None else value


class _Compiled(jinja2.FileSystemBytecodeCache):
    """What templates were compiled to, kept between runs by what they say: compiling takes a sixth of a short run."""

    def get_bucket(
        self, environment: jinja2.Environment, name: str, filename: str | None, source: str
    ) -> jinja2.bccache.Bucket:
        made_by = (Path(__file__).read_text(encoding="utf-8"), sys.version)  # the settings below are among it
        key = hashlib.sha256(repr((*made_by, name, source)).encode()).hexdigest()
        bucket = jinja2.bccache.Bucket(environment, key, self.get_source_checksum(source))
        self.load_bytecode(bucket)
        return bucket


def _compiled() -> jinja2.BytecodeCache | None:
    """Where it is kept; None where nobody can, or where others could write what is then run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ringfence" / "templates"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    return None if status.st_uid != os.getuid() or status.st_mode & 0o022 else _Compiled(str(folder), "%s")


@cache
def _environment(directory: Path) -> jinja2.Environment:
    return jinja2.Environment(  # noqa: S701 - these are configuration files, not HTML
        loader=jinja2.FileSystemLoader(directory),
        bytecode_cache=_compiled(),
        trim_blocks=True,
        undefined=_Undefined,
        finalize=_print_none_as_nothing,
    )


def _trailing_newlines(text: str) -> int:
    return len(text) - len(text.rstrip("\n"))


def render(template: Path, variables: Mapping[str, object]) -> str:
    """Render a template file to text.

    Args:
        template: path of the template; ``include`` finds its siblings.
        variables: the names that the template may use.

    Returns:
        The text, ending in as many newlines as the template's source (Ansible does the same).

    Raises:
        RenderError: the template does not exist, is not valid Jinja or uses an undefined variable.
    """
    try:
        text = _environment(template.parent).get_template(template.name).render(variables)
    except jinja2.TemplateNotFound as error:
        raise RenderError(f"template {template}: there is no such file: {error.name}") from error
    except jinja2.TemplateError as error:
        raise RenderError(f"template {template}: {error.message}") from error
    missing = _trailing_newlines(template.read_text(encoding="utf-8")) - _trailing_newlines(text)
    return text + "\n" * max(missing, 0)
