"""The documentation, and what draws and checks it."""
