"""The wire protocol, sans-IO: events, items, requests, and the rules that govern one exchange.

Nothing here imports Trio or httpx, does I/O or reads a clock.
"""
