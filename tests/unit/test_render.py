"""The renderer keeps Ansible's semantics; parity with ansible-core itself is tests/parity/test_templates.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.render import RenderError, render


def _render(tmp_path: Path, text: str, **variables: object) -> str:
    template = tmp_path / "x.j2"
    template.write_text(text, encoding="utf-8")
    return render(template, variables)


def test_a_block_takes_its_newline_along(tmp_path: Path) -> None:
    assert _render(tmp_path, "a\n{% if true %}\nb\n{% endif %}\n") == "a\nb\n"


def test_trailing_newlines_are_those_of_the_source(tmp_path: Path) -> None:
    assert _render(tmp_path, "a\n\n") == "a\n\n"
    assert _render(tmp_path, "a") == "a"


def test_none_prints_nothing(tmp_path: Path) -> None:
    assert _render(tmp_path, "[{{ x }}]", x=None) == "[]"


def test_an_undefined_variable_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="'nowhere' is undefined"):
        _render(tmp_path, "{{ nowhere }}")


def test_a_default_reaches_through_undefined_parents(tmp_path: Path) -> None:
    assert _render(tmp_path, "{{ a.b.c | default('z') }}") == "z"


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"there is no such file: gone\.j2"):
        render(tmp_path / "gone.j2", {})


def test_what_a_template_was_compiled_to_is_kept_unless_others_could_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "ringfence" / "templates"
    (tmp_path / "one").mkdir()
    assert _render(tmp_path / "one", "a {{ x }}", x=1) == "a 1"
    assert len(list(kept.iterdir())) == 1
    next(kept.iterdir()).write_bytes(b"nonsense")
    (tmp_path / "two").mkdir()
    assert _render(tmp_path / "two", "a {{ x }}", x=2) == "a 2"
    assert len(list(kept.iterdir())) == 1  # the same text, wherever it stands
    kept.chmod(0o777)
    (tmp_path / "three").mkdir()
    assert _render(tmp_path / "three", "b {{ x }}", x=3) == "b 3"
    assert len(list(kept.iterdir())) == 1
