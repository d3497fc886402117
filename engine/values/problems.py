"""The root of this library's exceptions, and the one that says that a value handed in is wrong."""

from __future__ import annotations

__all__ = ["ConfigurationError", "EngineError"]


class EngineError(Exception):
    """The root of every exception that this library raises on purpose."""


class ConfigurationError(EngineError, ValueError):
    """A value handed to the library is wrong; nothing was sent and no connection was made.

    Attributes:
        field: The value's name, for example ``"timeouts.connect"`` or ``"base_url"``.
        problem: The reason why it cannot be used.
    """

    field: str
    problem: str

    def __init__(self, field: str, problem: str = "is not valid") -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"
