"""Proof by real connections: which cells there are, what is expected of each, and how the answers differ.

Nothing here reads the policy's rules. Expectations come from the declaration (the ``verify_*`` variables), facts from
the running hosts, so that a mistake in the compiler or in a template cannot hide in the proof.
"""
