"""The rules of the protocol, sans-IO: what is sent, what belongs to which request, what is done about failures.

Nothing here imports Trio or httpx, does I/O or reads a clock.
"""
