"""The rules of a served script: one `Script` for each scope, and a journal of which rule answered which request."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from .brain import AnyBrain
from .script import Rule, Script, no_entry

if TYPE_CHECKING:
    from .requests import Asked
    from .step import Step

__all__ = ["SCOPE_HEADER", "Entry", "Rulebook"]

SCOPE_HEADER: Final = "x-simulator-scope"
_JOURNAL: Final = 10_000


@attrs.frozen
class Entry:
    """The outcome of one accepted request.

    Attributes:
        asked: The request.
        scope: Its scope; None outside all.
        rule: The rule that answered it; None where none fitted.
        near: The rules that came nearest where none fitted, each with the conditions that did not hold.
    """

    asked: Asked = attrs.field(repr=False)
    scope: str | None
    rule: Rule | None
    near: tuple[tuple[Rule, tuple[str, ...]], ...] = ()


class Rulebook:
    """A brain: answers by the rules of a request's scope, which are the scope's own and then those of all.

    Attributes:
        journal: The requests so far, oldest first.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        scopes: Mapping[str, Iterable[Rule]] | None = None,
        *,
        otherwise: AnyBrain | None = None,
    ) -> None:
        self.journal: list[Entry] = []
        self._loaded = tuple(rules), {name: tuple(each) for name, each in (scopes or {}).items()}
        self._otherwise = otherwise
        self._scripts: dict[str | None, Script] = {}
        self._count = 0
        self._ids: dict[int, str] = {}
        self.reset(loaded=True)

    def __repr__(self) -> str:
        return f"<Rulebook of {len(self.script(None).rules)} rules>"

    @property
    def strict(self) -> bool:
        """Whether a request that fits no rule is a mistake."""
        return self._otherwise is None

    def load(self, rules: Iterable[Rule], scopes: Mapping[str, Iterable[Rule]], *, otherwise: AnyBrain | None) -> None:
        """Replace every rule by what a file says now."""
        self._loaded = tuple(rules), {name: tuple(each) for name, each in scopes.items()}
        self._otherwise = otherwise
        self.reset(loaded=True)

    def reset(self, *, loaded: bool = True) -> None:
        """Forget what was answered; keep the loaded rules, or none."""
        self.journal.clear()
        self._scripts.clear()
        if not loaded:
            self._loaded = (), {}
        self._scripts[None] = self._new_script(None)
        for scope in self._loaded[1]:
            self.script(scope)

    def _new_script(self, scope: str | None) -> Script:
        script = Script(then=self._otherwise, strict=self._otherwise is None)
        own = self._loaded[1].get(scope, ()) if scope is not None else ()
        for rule in (*own, *self._loaded[0]):
            self._take(script, _fresh(rule), first=False)
        return script

    def _take(self, script: Script, rule: Rule, *, first: bool) -> str:
        self._count += 1
        self._ids[id(rule)] = identity = f"r{self._count}"
        rule.name = rule.name or identity
        if first:
            script.rules.insert(0, rule)
        else:
            script.rules.append(rule)
        return identity

    def script(self, scope: str | None) -> Script:
        """Return the script of a scope."""
        found = self._scripts.get(scope)
        if found is None:
            found = self._scripts[scope] = self._new_script(scope)
        return found

    @property
    def scopes(self) -> tuple[str | None, ...]:
        """The scopes that there are; None is the one without a name."""
        return tuple(self._scripts)

    def identity(self, rule: Rule) -> str:
        """Return the id of a rule."""
        return self._ids.get(id(rule), "")

    def add(self, scope: str | None, rule: Rule, *, first: bool = False) -> str:
        """Add a rule, behind or before all others of its scope; return its id."""
        return self._take(self.script(scope), rule, first=first)

    def remove(self, identity: str) -> bool:
        """Remove a rule; return whether there was one."""
        for script in self._scripts.values():
            for rule in script.rules:
                if self.identity(rule) == identity:
                    script.rules.remove(rule)
                    return True
        return False

    def clear(self) -> None:
        """Remove every rule."""
        for script in self._scripts.values():
            script.rules.clear()

    # --- answering ---

    async def reply(self, asked: Asked) -> Sequence[Step]:
        """Return the steps of the first rule that fits; where none does, the error says which came nearest."""
        scope = asked.headers.get(SCOPE_HEADER)
        script = self.script(scope)
        before = {id(rule): rule.uses for rule in script.rules}
        steps = await script.reply(asked)
        used = next((rule for rule in script.rules if rule.uses != before[id(rule)]), None)
        near = script.nearest(asked) if used is None else ()
        self.journal.append(Entry(asked, scope, used, near))
        del self.journal[:-_JOURNAL]
        return steps

    # --- what a strict run complains about ---

    @property
    def warm_ups(self) -> bool:
        """Whether warm-ups use up rules: they do not."""
        return False

    def unmatched(self) -> list[Entry]:
        """Return the requests that fitted no rule, where that is a mistake."""
        return [entry for entry in self.journal if entry.rule is None and self.strict]

    def unused(self) -> list[tuple[str | None, Rule]]:
        """Return the required rules that have not answered anything yet, with their scopes."""
        return [(scope, rule) for scope, script in self._scripts.items() for rule in script.unused()]

    def problems(self) -> list[str]:
        """Return what a strict simulator complains about at its end."""
        found = [f"{rule.name} was never used" for _, rule in self.unused()]
        return found + [no_entry(entry.near) for entry in self.unmatched()]


def _fresh(rule: Rule) -> Rule:
    made = copy.copy(rule)
    made.seen = made.uses = 0
    return made
