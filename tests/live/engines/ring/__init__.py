"""The attack on the ring, and the tests that make it: on one host of each engine, after the main job was done there."""
