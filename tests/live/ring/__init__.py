"""The attack on the ring, and the tests that make it, one host of each engine after the other."""
