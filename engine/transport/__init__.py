"""Trio I/O: opening streams, live WebSockets, and HTTP. Knows nothing of turns or retries."""
