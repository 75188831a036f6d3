"""What both engines send to a host, as text on the standard input of its Python: nothing has to be installed there."""
