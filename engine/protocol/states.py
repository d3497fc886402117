"""States as tables: what each state may become, and on what.

An object whose life has stages has one enum for them and one table beside it; the diagrams in the documentation are
drawn from the tables. A transition that a table does not have cannot happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias, TypeVar

__all__ = ["IllegalTransition", "Transitions", "move"]

_State = TypeVar("_State", bound=Enum)

Transitions: TypeAlias = Mapping[_State, Mapping[_State, str]]
"""From each state, where it can go, and on what."""


class IllegalTransition(RuntimeError):
    """Something tried to change a state in a way that its table does not have: a bug here."""


def move(transitions: Transitions[_State], state: _State, to: _State) -> _State:
    """Return the new state.

    Raises:
        IllegalTransition: the table does not have the transition.
    """
    if to not in transitions[state]:
        raise IllegalTransition(f"{type(state).__name__}: {state.value} cannot become {to.value}")
    return to
