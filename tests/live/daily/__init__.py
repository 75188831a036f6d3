"""What happens to a provisioned host day by day: changes, and a world that does not play along."""
