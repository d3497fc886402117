"""What is known of a server's labels, and what lanes may do by it."""

from __future__ import annotations

import pytest

from engine.protocol.labels import Labels, LabelState
from engine.settings.profiles import GENERIC, OPENAI, Profile

CLAIMS = Profile("claims", multiplexing=True)


@pytest.mark.parametrize(
    ("told", "server", "named", "shared"),
    [
        ("", GENERIC, False, False),
        ("p", GENERIC, False, False),
        ("", CLAIMS, True, False),
        ("p", CLAIMS, True, True),
        ("d", CLAIMS, False, False),
        ("pd", CLAIMS, False, False),
        ("dp", CLAIMS, False, False),
        ("df", CLAIMS, True, False),
        ("pf", CLAIMS, True, False),
        ("", OPENAI, True, True),
        ("d", OPENAI, False, False),
        ("df", OPENAI, True, True),
    ],
)
def test_what_lanes_may_do(told: str, server: Profile, named: bool, shared: bool) -> None:
    labels = Labels()
    for each in told:
        {"p": labels.prove, "d": labels.disprove, "f": labels.forget}[each]()
    assert (labels.named(server), labels.shared(server)) == (named, shared)


def test_what_is_found_out_stays() -> None:
    labels = Labels()
    for step in (labels.prove, labels.prove, labels.disprove, labels.disprove, labels.prove):
        step()
    assert labels.state is LabelState.DISPROVEN
