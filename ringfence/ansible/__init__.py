"""What Ansible lacks: the one action behind every role, copied into each by ``python -m ringfence.host``."""
