"""The HTTP resources beside ``POST …/responses``: what each answers, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import wire
from .history import Held
from .items import check_item
from .parameters import COMMON
from .requests import Shelf, normalise_input, read_request, text_of
from .shapes import unknown_parameter, wrong_value
from .wire import ApiError, Item

if TYPE_CHECKING:
    from .world import World

__all__ = ["answer", "parse", "shelf"]

_MODELS = ("gpt-6-astra", "gpt-5.4", "gpt-5.4-mini")


def answer(world: World, method: str, path: Sequence[str], query: Mapping[str, str], body: bytes) -> Any:
    """Return what a request is answered with, status 200.

    Args:
        world: The server.
        method: The request's method.
        path: Its path below the root, cut at the slashes; neither ``responses`` alone nor a stream that is asked for.
        query: Its query parameters.
        body: Its body.

    Raises:
        ApiError: what it is refused with.
    """
    match method, path:
        case "GET", ["models"]:
            return {"object": "list", "data": [_model(world, name) for name in _models(world)]}
        case "GET", ["models", name]:
            if name not in _models(world):
                raise ApiError(404, "model_not_found", f"The model '{name[:80]}' does not exist.", "model")
            return _model(world, name)
        case "POST", ["responses", "compact"]:
            return _compact(world, parse(body))
        case "POST", ["responses", "input_tokens"]:
            asked = read_request(parse(body), shelf(world), transport="http")
            return {"object": "response.input_tokens", "input_tokens": asked.prompt_tokens()}
        case "GET", ["responses", identity]:
            return world.response_as_it_stands(identity)
        case "GET", ["responses", identity, "input_items"]:
            return _page(_stored(world, identity).new_input, query)
        case "DELETE", ["responses", identity]:
            world.response_as_it_stands(identity)
            world.library.forget(identity)
            background = world.background.pop(identity, None)
            if background is not None:
                background.cancel()
            return {"id": identity, "object": "response", "deleted": True}
        case "POST", ["responses", identity, "cancel"]:
            background = world.background.get(identity)
            if background is None:
                _stored(world, identity)
                raise ApiError(400, None, "Only responses created with background=true can be cancelled.")
            background.cancel()
            return background.response
        case _, ["conversations", *rest]:
            return _conversations(world, method, rest, query, body)
        case _, ["responses" | "models", *_]:
            raise ApiError(405, None, "Method not allowed.")
    raise world.nothing_here()


def parse(raw: bytes) -> dict[str, Any]:
    """Return a request's JSON object.

    Raises:
        ApiError: it is none.
    """
    body = wire.loads(raw)
    if body is wire.NOT_JSON:
        raise ApiError(400, None, "The body is not valid JSON.")
    if not isinstance(body, dict):
        raise ApiError(400, None, "The body is a JSON object.")
    return body


def shelf(world: World) -> Shelf:
    """Return what a request over HTTP may refer to."""
    library = world.library

    def item(item_id: str) -> Item | None:
        return next((entry for entry in library.items() if entry.get("id") == item_id), None)

    return Shelf(library.stored, item, world.conversations.get)


def _stored(world: World, identity: str) -> Held:
    held = world.library.stored(identity)
    if held is None:
        raise ApiError(404, None, f"Response with id '{identity[:80]}' not found.")
    return held


def _models(world: World) -> Sequence[str]:
    return _MODELS if world.models is None else sorted(world.models)


def _model(world: World, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(world.started), "owned_by": "simulator"}


def _page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of a listing, newest first unless asked otherwise."""
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise wrong_value("order", "'order' must be one of: asc, desc.")
    limit = query.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        raise wrong_value("limit", "'limit' must be a whole number from 1 to 100.")
    listed = list(items) if order == "asc" else list(items)[::-1]
    after = query.get("after")
    if after is not None:
        places = [place for place, item in enumerate(listed) if item.get("id") == after]
        if not places:
            raise ApiError(404, None, f"Item with id '{after[:80]}' not found.", "after")
        listed = listed[places[0] + 1 :]
    data = listed[: int(limit)]
    page: dict[str, Any] = {"object": "list", "data": data, "has_more": len(data) < len(listed)}
    for name, index in (("first_id", 0), ("last_id", -1)):
        page[name] = data[index].get("id") if data else None
    return page


def _compact(world: World, body: dict[str, Any]) -> dict[str, Any]:
    asked = read_request(body, shelf(world), transport="http")
    kept = [item for item in asked.items if item.get("role") == "user"]
    digest = "\n".join(text_of(item.get("content")) for item in asked.items if item["type"] == "message")
    ids = world.ids
    compaction = {"id": ids.new("cmp"), "type": "compaction", "encrypted_content": ids.opaque(digest)}
    return {
        "id": ids.new("resp"),
        "object": "response.compaction",
        "created_at": int(world.now()),
        "output": [*({"id": ids.new("msg"), "status": "completed"} | item for item in kept), compaction],
        "usage": wire.usage_object(
            prompt=asked.prompt_tokens(), cached=0, answer=wire.count_tokens(digest), reasoning=0
        ),
    }


# --- conversations ---------------------------------------------------------------------------------------------------


def _conversations(world: World, method: str, path: Sequence[str], query: Mapping[str, str], body: bytes) -> Any:
    if not path:
        if method != "POST":
            raise ApiError(405, None, "Method not allowed.")
        given = _members(parse(body) if body.strip() else {}, "items", "metadata")
        items = _given_items(world, given.get("items") or [])
        identity = world.ids.new("conv")
        world.conversations[identity] = items
        world.notes[identity] = {"created_at": int(world.now()), "metadata": given.get("metadata") or {}}
        return _conversation(world, identity)
    identity, *rest = path
    held = world.conversations.get(identity)
    if held is None:
        raise ApiError(404, None, f"Conversation with id '{identity[:80]}' not found.")
    match method, rest:
        case "GET", []:
            return _conversation(world, identity)
        case "POST", []:
            notes = world.notes.setdefault(identity, {})
            notes["metadata"] = _members(parse(body), "metadata").get("metadata") or {}
            return _conversation(world, identity)
        case "DELETE", []:
            del world.conversations[identity]
            return {"id": identity, "object": "conversation.deleted", "deleted": True}
        case "GET", ["items"]:
            return _page(held, query)
        case "POST", ["items"]:
            items = _given_items(world, _members(parse(body), "items").get("items"))
            held += items
            return _page(items, {"order": "asc", "limit": "100"})
        case "GET", ["items", name]:
            return _item(held, name)
        case "DELETE", ["items", name]:
            held.remove(_item(held, name))
            return _conversation(world, identity)
    raise ApiError(405, None, "Method not allowed.")


def _members(body: dict[str, Any], *known: str) -> dict[str, Any]:
    for name, value in body.items():
        if name not in known:
            raise unknown_parameter(name)
        if name == "metadata" and value is not None:
            COMMON["metadata"](name, value)
    return body


def _given_items(world: World, value: object) -> list[Item]:
    if not isinstance(value, list) or len(value) > 20:
        raise wrong_value("items", "'items' takes an array of at most 20 items.")
    for index, item in enumerate(value):
        check_item(f"items[{index}]", item, last=False)
    prefix = {"message": "msg", "function_call": "fc", "function_call_output": "fc", "reasoning": "rs"}
    return [
        {"id": world.ids.new(prefix.get(item["type"], "item")), "status": "completed"} | item
        for item in normalise_input(value)
    ]


def _item(items: Sequence[Item], identity: str) -> Item:
    for item in items:
        if item.get("id") == identity:
            return item
    raise ApiError(404, None, f"Item with id '{identity[:80]}' not found.")


def _conversation(world: World, identity: str) -> dict[str, Any]:
    notes = world.notes.get(identity, {})
    created = notes.get("created_at", int(world.started))
    return {"id": identity, "object": "conversation", "created_at": created, "metadata": notes.get("metadata", {})}
