"""The tools of an MCP server, run by the tool loop: a description and a function are all that a tool needs.

pip install mcp
python -m docs.examples.mcp_tools                        # a server inside the program
python -m docs.examples.mcp_tools uvx mcp-server-time    # one that is started as a process
"""

from __future__ import annotations

import sys
from typing import Any

import trio
from mcp import Client, StdioServerParameters
from mcp.server import MCPServer
from mcp.types import TextContent, Tool

from docs.examples.offline import MODEL, server
from engine import FunctionTool, open_session
from engine.simulator import Answer, Call, Script

SAID = Script([[Call("weather", {"city": "Bergen"})], Answer("Take an umbrella.")])


def as_tool(client: Client, described: Tool) -> FunctionTool:
    """A tool of the MCP server as one for the loop. Cancelling the turn cancels the call."""

    async def call(**arguments: Any) -> str:
        result = await client.call_tool(described.name, arguments)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        if result.is_error:
            raise RuntimeError(text)
        return text

    return FunctionTool(
        call, name=described.name, description=described.description, parameters=described.input_schema, timeout=30
    )


def own() -> MCPServer:
    """A server with one tool."""
    made = MCPServer("weather")

    @made.tool()
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"rain in {city}"

    return made


async def main(command: list[str]) -> None:
    """Ask a question that needs a tool."""
    place = StdioServerParameters(command=command[0], args=command[1:]) if command else own()
    async with Client(place) as client, server(SAID) as (endpoint, dialer):
        tools = [as_tool(client, described) for described in (await client.list_tools()).tools]
        async with open_session(endpoint, model=MODEL, dialer=dialer) as session:
            reply = await session.run("Do I need an umbrella in Bergen?", tools)
            print(reply.text)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
