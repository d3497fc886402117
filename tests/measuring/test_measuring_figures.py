"""The benchmarks themselves: order of play, medians, ratios, processes, tables, the page."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest
import trio
from click.testing import CliRunner

from benchmarks import page, quiet, replay, scenarios, story, tables, targets
from benchmarks.__main__ import main
from benchmarks.cases import Case, Contestant, Measure, Skipped, contestants_of
from benchmarks.figures import interleaved, run_case, summary
from benchmarks.frames import answer_for, event_texts, personal
from benchmarks.machine import machine_facts
from benchmarks.peers import PEERS, peer_named
from benchmarks.stage import Stage
from engine.wire.codec import decode

ONE, TWO, THREE = (Contestant(label=name, peer="engine", job="none") for name in ("one", "two", "three"))
SPEED = Measure("speed", "speed", "/s", "higher")
RIGHT = Measure("right", "right", "", "right")


def case(*contestants: Contestant, **options: Any) -> Case:
    given: dict[str, Any] = {"baseline": "one"} | options
    return Case(name="case", title="Case", contestants=contestants, measures=(SPEED, RIGHT), **given)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_contestants_take_turns_and_each_round_begins_with_another_one() -> None:
    order = [(number, each.label) for number, each in interleaved((ONE, TWO, THREE), 4)]
    assert order == [
        (0, "one"), (0, "two"), (0, "three"),
        (1, "two"), (1, "three"), (1, "one"),
        (2, "three"), (2, "one"), (2, "two"),
        (3, "one"), (3, "two"), (3, "three"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], None),
        ([math.nan], None),
        ([3.0], (3.0, 3.0, 3.0)),
        ([5.0, 1.0, 3.0, math.nan, 2.0, 4.0], (3.0, 2.0, 4.0)),
        ([1.0, 2.0], (1.5, 1.25, 1.75)),
    ],
)
def test_a_summary_is_the_median_and_the_quartiles(
    samples: list[float], expected: tuple[float, float, float] | None
) -> None:
    found = summary(samples)
    assert (attrs.astuple(found) if found is not None else None) == expected


async def play(*contestants: Contestant, speeds: Mapping[str, list[float]], **options: Any) -> dict[str, Any]:
    left = {name: list(values) for name, values in speeds.items()}

    async def take(_: Case, contestant: Contestant, seed: int) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        speed = left[contestant.label].pop(0)
        if speed < 0:
            raise Skipped("it broke")
        return {"speed": speed, "right": seed}

    return await run_case(case(*contestants), take, **({"rounds": 3, "seed": 7} | options))


async def test_ratios_are_of_the_same_round() -> None:
    # The machine is twice as slow in the second round: the ratio does not move, and a ratio of medians would.
    done = await play(ONE, TWO, speeds={"one": [100, 50, 100], "two": [80, 40, 80]})
    one, two = (row["figures"]["speed"] for row in done["rows"])
    assert (one["ratio"], two["ratio"]) == (1.0, 0.8)
    assert two["samples"] == [80, 40, 80]
    assert (two["ratio_low"], two["ratio_high"]) == (0.8, 0.8)
    assert "ratio" not in done["rows"][1]["figures"]["right"]


async def test_rounds_that_warm_up_do_not_count_and_every_round_has_its_seed() -> None:
    done = await play(ONE, speeds={"one": [1, 5, 5]}, rounds=2, warm_up=1)
    assert done["rows"][0]["figures"]["speed"]["samples"] == [5, 5]
    assert done["rows"][0]["figures"]["right"]["samples"] == [8, 9]


async def test_who_cannot_run_is_noted_and_not_asked_again() -> None:
    steps = []
    done = await play(
        ONE, TWO, THREE, speeds={"one": [4, 4, 4], "two": [-1], "three": [2, -1]}, step=lambda: steps.append(0)
    )
    assert [row.get("note") for row in done["rows"]] == [None, "it broke", "it broke"]
    assert done["rows"][1]["figures"]["speed"] is None
    assert done["rows"][2]["figures"]["speed"]["ratio"] == 0.5
    assert len(steps) == 9


def test_a_case_is_narrowed_to_peers_and_keeps_its_baseline() -> None:
    full = scenarios.scenarios("tiny", ["throughput"])[0].cases[0]
    narrowed = contestants_of(full, ["openai-http"])
    assert narrowed is not None
    assert [each.label for each in narrowed.contestants] == ["trio-websocket", "openai-http"]
    assert contestants_of(full, ["json.loads"]) is None
    assert contestants_of(full, []) is full


def test_machine_facts_name_neither_machine_nor_user() -> None:
    import getpass
    import socket

    facts = machine_facts()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"at", "processor", "processors", "system", "load_average"} <= set(facts)
    text = json.dumps(list(facts.values())).lower()
    assert socket.gethostname().lower() not in text
    assert f"/{getpass.getuser().lower()}" not in text


# --- what is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["tiny", "quick", "full"])
def test_every_scenario_is_well_formed(size: scenarios.Size) -> None:
    made = scenarios.scenarios(size)
    assert [each.name for each in made] == list(scenarios.SCENARIOS)
    for scenario in made:
        names = [each.name for each in scenario.cases]
        assert len(set(names)) == len(names)
        for each in scenario.cases:
            labels = [contestant.label for contestant in each.contestants]
            assert len(set(labels)) == len(labels)
            assert each.baseline is None or each.baseline in labels
            assert all(peer_named(contestant.peer) for contestant in each.contestants)


def test_every_target_is_measured_by_a_full_run() -> None:
    cases = {(scenario.name, each.name): each for scenario in scenarios.scenarios("full") for each in scenario.cases}
    for target in targets.TARGETS:
        found = [
            each
            for (scenario, name), each in cases.items()
            if scenario == target.scenario
            and (name == target.case or (target.case.endswith("-") and name.startswith(target.case)))
        ]
        assert found, target
        assert target.label in {each.label for each in found[-1].contestants}, target
        assert target.measure in {each.key for each in found[-1].measures}, target


def test_missing_modules_are_named() -> None:
    assert attrs.evolve(peer_named("engine"), needs=("trio", "no_such.module")).missing() == "no_such.module"
    assert peer_named("engine").missing() is None
    assert len({peer.name for peer in PEERS}) == len(PEERS)


@pytest.mark.parametrize("model", ["deltas-300-3", "answer", "paced-5-3", "tools-1-10", "silence"])
def test_replayed_events_are_known_to_the_codec(model: str) -> None:
    for calling in (False, True):
        for text in event_texts(model, calling=calling):
            assert type(decode(text)).__name__ != "UnknownEvent"


@pytest.mark.parametrize("wire", ["websocket", "sse"])
def test_answers_get_ids_of_their_own_without_changing_their_length(wire: Any) -> None:
    encoded = answer_for("answer", wire).head
    mine = personal(encoded, 7, b"nonce-1234567890")
    assert len(mine) == len(encoded)
    assert mine.count(b"id0000000007") == encoded.count(b"id0000000000") > 3
    assert mine.count(b"nonce-1234567890") > 1
    assert b"nonce-0000000000" not in mine


@pytest.mark.parametrize("size", [180, 300, 6000])
def test_deltas_have_the_size_that_was_asked_for(size: int) -> None:
    assert abs(len(event_texts(f"deltas-{size}-3")[5]) - size) <= 4


def test_masks_are_taken_off() -> None:
    masked = bytes(byte ^ b"abcd"[place % 4] for place, byte in enumerate(b"hello there"))
    assert replay._unmasked(masked, b"abcd") == b"hello there"


# --- tables and the page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12,346"), (1000, "1,000"), (0.1234, "0.123"), (12.345, "12.3"), (-0.5, "-0.5"), (3.0, "3")],
)
def test_figures_have_three_digits_or_so(value: float, text: str) -> None:
    assert tables.shown(value) == text


async def played() -> dict[str, Any]:
    done = await play(ONE, TWO, THREE, speeds={"one": [4, 4, 4], "two": [3, 2, 1], "three": [-1]})
    machine = machine_facts() | {"load_average": 0.5, "load_average_after": 1.0, "peers": {"x: thing": "1.2"}}
    scenario = {"name": "racing", "title": "Racing", "text": "They run.", "cases": [done]}
    return {"machine": machine, "rounds": 3, "warm_up": 1, "seed": 7, "size": "full", "scenarios": [scenario]}


async def test_a_case_becomes_a_table() -> None:
    result = await played()
    heading, rows = tables.cells_of(result["scenarios"][0]["cases"][0])
    assert heading == ["", "speed, /s", "× one", "right"]
    assert rows == [
        ["one", "4", "1.00", "8 (7.5–8.5)"],
        ["two", "2 (1.5–2.5)", "0.50 (0.38–0.62)", "8 (7.5–8.5)"],
        ["three", "it broke", "–", "–"],
    ]


async def test_the_page_holds_tables_targets_pictures_and_the_machine() -> None:
    result = await played()
    text = page.page_of(json.loads(json.dumps(result)), {"racing": "benchmarks/racing.svg"})
    assert "| two | 2 (1.5–2.5) | 0.50 (0.38–0.62) |" in text
    assert "![Racing](benchmarks/racing.svg)" in text
    assert "not measured" in text
    assert "0.50 before, 1.00 after" in text
    assert "thing 1.2" in text
    assert "rounds 3, after 1 that did not count, seed 7" in text


def told(figures: Mapping[str, float | None]) -> str | None:
    rows = [
        {"label": label, "figures": {"cpu_us_per_event": None if cost is None else {"median": cost}}}
        for label, cost in figures.items()
    ]
    case = {"name": "deltas", "rounds": 3, "rows": rows}
    return story.story_of({"machine": {"at": "2026-01-02"}, "scenarios": [{"name": "throughput", "cases": [case]}]})


def test_the_story_is_told_from_the_least_to_the_most() -> None:
    drawn = told({"trio-websocket": 20.0, "engine": 4.04, "openai-http": None, "another": 1.0})
    assert drawn is not None
    texts = [each.text for each in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert texts.index("4.0") < texts.index("20.0")
    assert "openai-python, HTTP" not in texts
    assert told({"engine": 4.0}) is None
    assert story.story_of({"scenarios": []}) is None


def test_what_other_programs_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(100.0, 40.0, 10.0), (200.0, 120.0, 60.0)])
    monkeypatch.setattr(quiet, "_times", lambda: next(times))
    watch = quiet.Watch()
    assert watch.share() == pytest.approx(0.3)  # 80 of 100 seconds were work, 50 of them the run's own
    assert [quiet.busy(share) for share in (None, 0.0, 0.049, 0.05, 0.9)] == [False, False, False, True, True]
    assert tables.disturbed({"others": 0.43}) == " (other programs took 43% of the processors meanwhile)"
    assert tables.disturbed({}) == ""


def test_nothing_is_told_of_a_machine_that_was_just_looked_at() -> None:
    assert 0 <= quiet.Watch().share() <= 1


async def test_targets_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    result = await played()
    aims = [targets.Target("a", "racing", "case", "two", "speed", relation, 0.5) for relation in ("≥", "≤")]
    aims.append(targets.Target("b", "racing", "ca-", "two", "speed", "≤", 1.9, "median"))
    aims.append(targets.Target("c", "racing", "case", "three", "speed", "≤", 1))
    monkeypatch.setattr(targets, "TARGETS", aims)
    result["scenarios"][0]["cases"].append(result["scenarios"][0]["cases"][0] | {"name": "ca-2"})
    assert [(each.value, each.reached) for each in targets.found(result)] == [
        (0.5, True), (0.5, True), (2, False), (None, None),
    ]  # fmt: skip


async def test_the_page_says_why_a_target_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    aims = [
        targets.Target("missed", "racing", "case", "two", "speed", "≥", 0.9, why="it limps"),
        targets.Target("reached", "racing", "case", "two", "speed", "≥", 0.1, why="it would limp"),
    ]
    monkeypatch.setattr(targets, "TARGETS", aims)
    text = page.page_of(await played(), {})
    assert "- missed: it limps.\n" in text
    assert "it would limp" not in text
    monkeypatch.setattr(targets, "TARGETS", aims[1:])
    assert "Why not" not in page.page_of(await played(), {})


async def test_pictures_are_the_same_bytes_for_the_same_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.pictures import draw

    result = await played()
    first, again = (draw(result, tmp_path / name) for name in ("first", "again"))
    assert [path.name for path in first] == ["racing.svg"]
    assert first[0].read_bytes() == again[0].read_bytes()
    assert "Case" in first[0].read_text()


def test_the_newest_results_are_taken(tmp_path: Path) -> None:
    for name in ("20260102T000000-full.json", "20260101T000000-full.json"):
        (tmp_path / name).write_text("{}")
    assert page.newest(tmp_path).name == "20260102T000000-full.json"


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("throughput", "latency"), ("start", "cancellation", "release"), ("timeouts",)])
@pytest.mark.slow
def test_a_run_measures_writes_json_and_makes_a_page(tmp_path: Path, names: tuple[str, ...]) -> None:
    results = tmp_path / "results.json"
    given = ["--size", "tiny", "--peer", "engine", "--peer", "engine-sse", "--output", str(results)]
    given += [part for name in names for part in ("--scenario", name)]
    ran = CliRunner().invoke(main, given, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    found = json.loads(results.read_text(encoding="utf-8"))
    assert tuple(each["name"] for each in found["scenarios"]) == names
    text = page.page_of(found, {})
    for scenario in found["scenarios"]:
        for each in scenario["cases"]:
            assert each["title"] in text
            for row in each["rows"]:
                assert "note" not in row, row
                figures = dict(row["figures"])
                if not row["label"].startswith("engine, ") or "own deadline" in row["label"]:
                    figures.pop("over_beside", None)  # there are no sleeps beside sleeps
                assert all(figure is not None for figure in figures.values()), row
                right = row["figures"].get("right")
                if right is not None and row["peer"] == "engine":
                    assert right["median"] == row["figures"]["of"]["median"], row


@pytest.mark.parametrize(
    "given", [["--peer", "json.loads", "--scenario", "release"], ["--python", "nobody=/bin/x"], ["--case", "none"]]
)
def test_arguments_that_make_no_sense_are_refused(given: list[str]) -> None:
    ran = CliRunner().invoke(main, given)
    assert ran.exit_code == 2


async def test_a_contestant_that_fails_or_hangs_loses_its_turn_only() -> None:
    asked = attrs.evolve(ONE, peer="json.loads", server="none")
    async with Stage() as stage:
        with pytest.raises(Skipped, match="TypeError"):
            await stage.take(case(asked), attrs.evolve(asked, job="sleeps", params={"never": 1}), 1)
        with pytest.raises(Skipped, match=r"within 0\.2 s"):
            slow = attrs.evolve(asked, job="cancel_bare", params={"concurrent": 1, "times": 10_000})
            await stage.take(case(asked, seconds=0.2), slow, 1)
        done = await stage.take(
            case(asked), attrs.evolve(asked, job="cancel_bare", params={"concurrent": 2, "times": 1}), 1
        )
        assert done["back_ms"] > 0
