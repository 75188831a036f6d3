"""Writes the users file as Authelia does when somebody has changed their password: change.py FILE PERSON HASH."""

import sys
from pathlib import Path

import yaml

path, person, digest = Path(sys.argv[1]), *sys.argv[2:]
users = yaml.safe_load(path.read_text())
users["users"][person]["password"] = digest
path.write_text(yaml.safe_dump(users))
