"""The plain values of callers: messages, events, errors and reports.

They know neither the wire nor Trio.
"""
