"""What callers hold: messages, events, errors, reports. Plain values that know neither the wire nor Trio."""
