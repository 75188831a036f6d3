"""ringfence: a zero-trust network around every service of a homelab.

Data flows one way: inventories + group_vars → model → compile → role variables → host → verify.
"""

from __future__ import annotations

__version__ = "0.1.0"
