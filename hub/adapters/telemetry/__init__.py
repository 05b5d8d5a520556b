"""What people and machines see of a running hub: logs and metrics."""
