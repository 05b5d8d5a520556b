"""`numhub demo`: the mission played with real processes over real HTTP, and compared with a secret ground truth."""
