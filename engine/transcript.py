"""Conversations as JSON text and back, without loss."""

from engine.schemas.transcripts import from_json as from_json
from engine.schemas.transcripts import to_json as to_json
