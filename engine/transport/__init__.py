"""Trio I/O: opening streams, and one live WebSocket. Knows nothing of turns or retries."""
