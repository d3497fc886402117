"""Images and files from bytes and paths, and reprs that show what is said only where that is wanted."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import trio

from engine import (
    AssistantMessage,
    ConfigurationError,
    Context,
    File,
    Image,
    OutputItem,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    UserMessage,
    show_content,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
SIGNED = [
    (PNG, "image/png"),
    (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
    (b"GIF89a", "image/gif"),
    (b"GIF87a...", "image/gif"),
    (b"RIFF\n\x00\x00\x00WEBPVP8 ", "image/webp"),
]


def refused(make: Any, *args: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        make(*args)
    return caught.value


@pytest.mark.parametrize(("data", "media_type"), SIGNED)
def test_images_say_what_they_are(tmp_path: Path, data: bytes, media_type: str) -> None:
    expected = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    assert Image.from_bytes(data).url == expected
    assert Image.from_bytes(data, detail="low") == Image(expected, detail="low")
    path = tmp_path / "picture.xyz"  # what it is called says nothing
    path.write_bytes(data)
    assert Image.from_path(path, detail="high") == Image.from_path(str(path), detail="high")
    assert Image.from_path(path).url == expected


def test_images_of_other_kinds_need_a_type() -> None:
    assert refused(Image.from_bytes, b"<svg/>").field == "image"
    assert Image.from_bytes(b"<svg/>", "image/svg+xml").url == "data:image/svg+xml;base64,PHN2Zy8+"


@pytest.mark.parametrize("data", [b"", "text", None, 7])
def test_what_has_no_bytes(data: Any) -> None:
    assert refused(Image.from_bytes, data).field == "image"
    assert refused(Image.from_bytes, data, "image/png").field == "image"
    assert refused(File.from_bytes, data, "a.pdf").field == "file"


@pytest.mark.parametrize("media_type", ["png", "image/", "image/png\n", "a b/c", 7])
def test_media_types_that_are_none(media_type: Any) -> None:
    assert refused(Image.from_bytes, PNG, media_type).field == "image"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("report.pdf", "application/pdf"), ("notes.txt", "text/plain"), ("data.xyzzy", "application/octet-stream")],
)
def test_files_are_what_their_names_say(tmp_path: Path, name: str, media_type: str) -> None:
    (tmp_path / name).write_bytes(b"abc")
    expected = File(data=f"data:{media_type};base64,YWJj", filename=name)
    assert File.from_path(tmp_path / name) == File.from_bytes(b"abc", name) == expected
    assert File.from_bytes(b"abc", name, "text/csv").data == "data:text/csv;base64,YWJj"


def test_files_have_names() -> None:
    for name in ("", " ", None):
        assert refused(File.from_bytes, b"abc", name).field == "file name"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for make in (Image.from_path, File.from_path):
        with pytest.raises(FileNotFoundError):
            make(tmp_path / "nowhere")


def test_the_text_of_a_tools_result() -> None:
    assert ToolResult("c", [Text("a"), Image.from_bytes(PNG), Text("b")]).text == "ab"
    assert ToolResult("c", "a").text == "a"
    assert ToolResult("c", []).text == ""


SECRET = "s3cret"
HOLDERS = [
    Text(SECRET),
    UserMessage(SECRET),
    AssistantMessage(SECRET),
    Context([UserMessage(SECRET)], instructions=SECRET),
    TextDelta(0, SECRET),
    ToolCall("c", "f", {"a": SECRET}),
    OutputItem({"type": SECRET}),
    ToolResult("c", SECRET),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_content_is_shown_where_that_is_wanted(holder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SECRET not in repr(holder)
    with show_content():
        assert SECRET in repr(holder)
        with show_content():
            assert SECRET in repr(holder)
        assert SECRET in repr(holder)
    assert SECRET not in repr(holder)
    monkeypatch.setenv("SESSION_ENGINE_SHOW_CONTENT", "1")
    assert SECRET in repr(holder)
    monkeypatch.setenv("SESSION_ENGINE_SHOW_CONTENT", "0")
    assert SECRET not in repr(holder)


async def test_content_is_shown_in_one_task_and_those_it_starts() -> None:
    seen: dict[str, bool] = {}
    asked = trio.Event()

    async def look(name: str, *, first: trio.Event | None = None) -> None:
        if first is not None:
            await first.wait()
        seen[name] = SECRET in repr(Text(SECRET))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: look("beside", first=asked))
        with show_content():
            nursery.start_soon(look, "within")
            asked.set()
            await trio.testing.wait_all_tasks_blocked()
    assert seen == {"beside": False, "within": True}
