"""Conversations: transcripts, and the loop that runs the tools a model calls."""
