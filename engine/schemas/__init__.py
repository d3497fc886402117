"""Schemas of answers and of tools' arguments, and the values that fit them."""
