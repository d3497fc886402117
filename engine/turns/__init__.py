"""Turns: what waits for a lane, runs in a session's nursery, and is read by its caller."""
