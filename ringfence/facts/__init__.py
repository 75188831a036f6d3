"""Facts that pyinfra lacks."""
