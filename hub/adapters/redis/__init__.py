"""Short-lived help shared by many processes, in Redis 7."""
