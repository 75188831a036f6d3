"""What attacks the ring, on the hosts: Python of the distribution, no dependencies."""
