"""One host of each engine, as the first run leaves it."""
