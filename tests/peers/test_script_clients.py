"""Other clients against `simulate --script` as a process of its own: what works in one process might not over two."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 60

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
RULES: list[dict[str, Any]] = [
    {
        "when": {"text": "weather", "tool_output": False},
        "reply": [{"think": "I look."}, {"call": {"name": "weather", "arguments": {"city": "Bergen"}}}],
    },
    {"when": {"tool_output": True}, "reply": "Take an umbrella."},
    {
        "when": {"text": "LIST", "tool_output": False},
        "reply": {"call": {"name": "exec_command", "arguments": {"cmd": "echo from-the-tool"}}},
    },
    {"when": {"text": "CUT"}, "times": 1, "reply": [{"delta": "half a sen"}, {"cut_frame": 0.5}]},
    {"when": {"text": "CUT"}, "reply": "A whole sentence."},
    {"when": {"continued": True, "text": "again"}, "reply": "And again."},
]


class Server:
    """``simulate --script`` in a process."""

    def __init__(self, folder: Path, **members: Any) -> None:
        script = folder / "script.json"
        script.write_text(json.dumps({"version": 1, "rules": RULES, "otherwise": {"brain": "echo"}, **members}))
        self.log = folder / "frames.jsonl"
        command = [sys.executable, "-m", "engine", "simulate", "--json", "--script", script, "--log", self.log]
        self.process = subprocess.Popen(
            [*map(str, command), "--exit-with-parent"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.base_url: str = json.loads(self.process.stdout.readline())["base_url"]

    def kinds(self) -> list[Any]:
        """What has passed: how upgrades were answered, and how requests came."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()[1:]]
        return [line["status"] for line in lines if line["kind"] == "answer"]

    def end(self) -> None:
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.end()


def test_openai_python(server: Server) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="sk-any") as client:
        first = client.responses.create(model="gpt-5.4", input="hello")
        assert first.output_text == "hello"
        again = client.responses.create(model="gpt-5.4", input="again", previous_response_id=first.id)
        assert again.output_text == "And again."
        tools: Any = [WEATHER]
        with client.responses.stream(model="gpt-5.4", input="the weather?", tools=tools) as stream:
            (call,) = (item for item in stream.get_final_response().output if item.type == "function_call")
        output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
        history: Any = [{"role": "user", "content": "the weather?"}, call.model_dump(exclude_none=True), *output]
        assert client.responses.create(model="gpt-5.4", input=history, tools=tools).output_text == "Take an umbrella."


def test_openai_agents(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)

    @agents.function_tool  # type: ignore[untyped-decorator]
    def weather(city: str) -> str:
        """Say what the weather is like."""
        return f"rain in {city}"

    async def main() -> str:
        async with agents.responses_websocket_session(api_key="sk-any", base_url=server.base_url) as session:
            agent = agents.Agent(name="forecaster", model="gpt-5.4", tools=[weather])
            return str((await session.run(agent, "the weather?")).final_output)

    assert asyncio.run(main()) == "Take an umbrella."
    assert 101 in server.kinds()


# --- clients that come with npm --------------------------------------------------------------------------------------

FOLDER = os.environ.get("SESSION_ENGINE_NODE_PEERS", "")
needs_npm = pytest.mark.skipif(
    shutil.which("node") is None or not (Path(FOLDER) / "node_modules" / "openai").exists(),
    reason="SESSION_ENGINE_NODE_PEERS is no folder where `npm install openai ws @openai/codex` was run",
)

NODE = """
import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";
const client = new OpenAI({ apiKey: "sk-any", baseURL: process.argv[2] });
const model = "gpt-5.4", tools = [JSON.parse(process.argv[3])];
const first = await client.responses.create({ model, input: "hello" });
let text = "";
for await (const event of await client.responses.create({ model, input: "streamed", stream: true }))
  if (event.type === "response.output_text.delta") text += event.delta;
const again = await client.responses.create({ model, input: "again", previous_response_id: first.id });
const called = await client.responses.create({ model, input: "the weather?", tools });
const call = called.output.find((item) => item.type === "function_call");
const output = { type: "function_call_output", call_id: call.call_id, output: "rain" };
const told = await client.responses.create({ model, tools, previous_response_id: called.id, input: [output] });
const socket = new ResponsesWS(client);
const said = await new Promise((resolve, reject) => {
  let heard = "";
  socket.on("response.output_text.delta", (event) => (heard += event.delta));
  socket.on("response.completed", () => resolve(heard));
  socket.on("error", reject);
  socket.send({ type: "response.create", model, input: "over a socket" });
});
socket.close();
console.log(JSON.stringify([first.output_text, text, again.output_text, told.output_text, said]));
"""


@needs_npm
@pytest.mark.timeout(180)
def test_openai_node(server: Server, tmp_path: Path) -> None:
    program = Path(FOLDER) / f"peer-{os.getpid()}.mjs"
    program.write_text(NODE)
    try:
        done = subprocess.run(
            ["node", program, server.base_url, json.dumps(WEATHER)],
            cwd=FOLDER, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    finally:
        program.unlink()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["hello", "streamed", "And again.", "Take an umbrella.", "over a socket"]


def codex(server: Server, folder: Path, prompt: str) -> str:
    home = Path(FOLDER) / f"codex-{os.getpid()}"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f"""
model = "gpt-5.4"
model_provider = "sim"
approval_policy = "never"
sandbox_mode = "danger-full-access"
[model_providers.sim]
name = "Simulator"
base_url = "{server.base_url}"
env_key = "SIM_KEY"
wire_api = "responses"
supports_websockets = true
"""
    )
    try:
        done = subprocess.run(
            [Path(FOLDER) / "node_modules" / ".bin" / "codex", "exec", "--skip-git-repo-check", prompt],
            cwd=folder, env={**os.environ, "CODEX_HOME": str(home), "SIM_KEY": "sk-any"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_npm
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("prompt", "answer"), [("hello", "hello"), ("LIST", "Take an umbrella."), ("CUT", "A whole sentence.")]
)
def test_codex(server: Server, tmp_path: Path, prompt: str, answer: str) -> None:
    """A text turn, a tool turn, a frame cut in the middle; each continues a warm-up, as Codex does it."""
    assert codex(server, tmp_path, prompt) == answer
    assert set(server.kinds()) == {101}
    if prompt == "LIST":
        assert "from-the-tool" in server.log.read_text()


@needs_npm
@pytest.mark.timeout(300)
def test_codex_goes_over_to_http(tmp_path: Path) -> None:
    server = Server(tmp_path, handshakes=[{"refuse": 426}] * 5)
    assert codex(server, tmp_path, "hello") == "hello"
    assert server.kinds() == [426, 200]
    server.end()
