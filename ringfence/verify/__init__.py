"""Proof by real connections: which cells there are, what is expected of each, and how the answers differ.

Nothing here reads the policy's rules. Expectations come from the ``verify_*`` variables, which the compiler writes, and
are compared with a second reading of the declaration (`second_reading`); facts come from the running hosts. How far
that goes is said in docs/verify.md.
"""
