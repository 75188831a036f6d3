"""The chassis of the host-side programs: what they share, put into each of them between two markers.

A program stays one file of the distribution's Python without dependencies, so that its role can be copied alone.
What several of them need stands here once, in modules that the standard library alone feeds; ``python -m
ringfence.host`` writes them into the programs (`ringfence.host.embed`), and a test holds the copies equal.

So do parts of one program that change for a reason of their own, or that the model shares: `texts`, compose documents
(`compose`), directories that are swapped at once (`swapping`), projects as they are declared (`projects`), and what the
release before wrote (`earlier`).
"""
