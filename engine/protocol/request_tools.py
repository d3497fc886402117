"""Tools in wire form: schemas the way servers take them, and ``strict`` only where all of them can be enforced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engine.schemas.derive import is_strict
from engine.schemas.function_tool import FunctionTool, as_tool
from engine.values.messages import AnyTool, Tool

__all__ = ["own", "wire_tools"]


def own(value: Any) -> Any:
    """Copy a value's lists and mappings, of whatever class, so that a payload hook cannot change the caller's."""
    try:
        return _copied(value)
    except RecursionError:
        return value  # the encoder says what is wrong with it


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(each) for each in value]
    return value


def wire_tools(tools: Iterable[AnyTool]) -> list[dict[str, Any]]:
    """Return tools in wire form; mappings (hosted and custom tools) pass through.

    ``strict`` is absent where a tool leaves it at None, and false where a tool says so. A tool that asks for it gets
    it only if every function of the request has a schema that can be enforced, those in wire form included; otherwise
    all that asked say false, so that a request's functions are decoded in one way.
    """
    described = [_described(number, tool) for number, tool in enumerate(tools)]
    schemas = {
        number: _object_schema(tool.parameters) for number, tool in enumerate(described) if isinstance(tool, Tool)
    }
    enforceable = all(_enforceable(schema) for schema in schemas.values()) and all(
        _enforceable(tool.get("parameters") or {})
        for tool in described
        if isinstance(tool, Mapping) and tool.get("type") == "function"
    )
    return [
        _function(tool, schemas[number], enforceable) if isinstance(tool, Tool) else own(tool)
        for number, tool in enumerate(described)
    ]


def _described(number: int, given: AnyTool) -> Tool | Mapping[str, Any]:
    tool = as_tool(given, f"tools[{number}]")
    return tool.tool if isinstance(tool, FunctionTool) else tool


def _function(tool: Tool, schema: dict[str, Any], enforceable: bool) -> dict[str, Any]:
    wire: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        wire["description"] = tool.description
    wire["parameters"] = schema
    if tool.strict is not None:
        wire["strict"] = tool.strict and enforceable
        if wire["strict"] and _takes_nothing(schema):
            wire["parameters"] = {**schema, "required": [], "additionalProperties": False}
    return wire


def _enforceable(schema: object) -> bool:
    return is_strict(schema) or (isinstance(schema, Mapping) and _takes_nothing(schema))


def _takes_nothing(schema: Mapping[str, Any]) -> bool:
    """Whether a schema describes no argument at all: there is nothing to enforce then."""
    return (
        not schema.get("properties")
        and not set(schema) - {"type", "properties", "required", "additionalProperties", "description", "title"}
        and not schema.get("additionalProperties")
    )


def _object_schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a schema into the form the server takes: an object, with properties, without alternatives at the top."""
    schema: dict[str, Any] = {"type": "object", **own(parameters)}
    if schema["type"] != "object":
        return schema
    schema.setdefault("properties", {})
    variants = schema.get("anyOf")
    if isinstance(variants, list) and variants and all(_lists_properties(each) for each in (schema, *variants)):
        del schema["anyOf"]
        _admit_all(schema, variants)
    return schema


def _lists_properties(schema: object) -> bool:
    return isinstance(schema, dict) and isinstance(schema.get("properties"), dict)


def _admit_all(schema: dict[str, Any], variants: list[dict[str, Any]]) -> None:
    """Make one object schema of several: what any variant knows is allowed, what all of them require is required."""
    properties: dict[str, Any] = schema["properties"]
    alternatives: dict[str, list[Any]] = {}
    for variant in variants:
        for name, each in variant["properties"].items():
            known = alternatives.setdefault(name, [properties[name]] if name in properties else [])
            if each not in known:
                known.append(each)
    for name, known in alternatives.items():
        properties[name] = known[0] if len(known) == 1 else {"anyOf": known}
    required = _required(schema)
    required += [
        name
        for name in _required(variants[0])
        if name not in required and all(name in _required(variant) for variant in variants)
    ]
    if required:
        schema["required"] = required


def _required(schema: dict[str, Any]) -> list[Any]:
    value = schema.get("required")
    return list(value) if isinstance(value, list) else []
