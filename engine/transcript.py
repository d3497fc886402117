"""Conversations as JSON text and back, without loss."""

from engine.schemas.transcripts import from_json, to_json

__all__ = ["from_json", "to_json"]


def __dir__() -> list[str]:
    return sorted(__all__)
