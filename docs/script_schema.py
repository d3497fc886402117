"""Writes what `simulator-script.schema.json` says of quirks: ``python -m docs.script_schema`` after adding one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import attrs

from engine.simulator import Quirks

__all__ = ["SCHEMA", "quirks"]

SCHEMA: Final = Path(__file__).parent / "simulator-script.schema.json"


def quirks() -> dict[str, Any]:
    """Return the schema of a script's quirks: names, each of which reverses what is usual, or values by name."""
    hints = get_type_hints(Quirks)
    fields = attrs.fields(Quirks)
    names = [each.name for each in fields if isinstance(each.default, bool)]
    return {
        "description": "Names of quirks, each of which reverses what is usual; or an object with a value for each.",
        "anyOf": [
            {"type": "array", "items": {"type": "string", "enum": names}, "uniqueItems": True},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {each.name: _value(hints[each.name]) for each in fields},
            },
        ],
    }


def _value(hint: Any) -> dict[str, Any]:
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": {"type": "string"}}
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    return {"anyOf": [_value(each) for each in get_args(hint)]}


_TYPES: Final[dict[Any, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
}


def main() -> None:
    """Write the file anew."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["$defs"]["quirks"] = quirks()
    SCHEMA.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
