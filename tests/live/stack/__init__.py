"""The role stack on one host: what it does with files, owners, secrets and versions."""
