"""Larger programs. From a checkout: ``python -m docs.examples.agent``, and so on."""
