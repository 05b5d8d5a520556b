"""Short-lived help in process memory."""
