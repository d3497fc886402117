"""The vocabulary of the protocol: events, items, requests, and the codec that reads them."""
