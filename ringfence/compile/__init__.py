"""From the declared lab to each role's documented variables. Pure: reads no file, touches no host."""

from __future__ import annotations

from ringfence.compile.compiler import Compiled, compile_lab

__all__ = ["Compiled", "compile_lab"]
