"""The turns of `agent_client_smoke.sh`: what an agent asks of a gateway, over plain HTTP with the standard library.

For:      operators, against any gateway. `agent_client_smoke.py URL KEY MODEL` plays the turns; `--is-up URL` only asks
          whether a gateway answers there.
Touches:  the network, and stdout.
"""

import http.client
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 60  # a cold model may load for a while; a gateway's own timeouts are shorter
SHOWN_CHARACTERS: Final = 2000  # of an answer that was not expected

QUESTION: Final = {"role": "user", "content": "What is the weather in Seoul? Use the tool."}
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Unexpected(Exception):
    """A step went otherwise than it should; the text says what was expected and what came."""


def expect(is_so: bool, wanted: str, got: object) -> None:
    if not is_so:
        raise Unexpected(f"expected {wanted}\n     got {str(got)[:SHOWN_CHARACTERS]}")


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Unexpected(f"expected JSON\n     got {text[:SHOWN_CHARACTERS]}") from None


@dataclass(frozen=True)
class Answer:
    """Status, media type and the whole body."""

    status: int
    media_type: str
    text: str

    def document(self, status: int) -> dict[str, Any]:
        """The JSON object of the body."""
        expect(self.status == status, f"status {status}", f"{self.status}: {self.text}")
        expect(self.media_type == "application/json", "application/json", self.media_type)
        document = parsed(self.text)
        expect(isinstance(document, dict), "a JSON object", self.text)
        return dict(document)

    def chunks(self) -> list[dict[str, Any]]:
        """The JSON objects of a stream that ended as it should."""
        expect(self.status == 200, "status 200", f"{self.status}: {self.text}")
        expect(self.media_type == "text/event-stream", "text/event-stream", self.media_type)
        lines = [line.removeprefix("data:").strip() for line in self.text.splitlines() if line.startswith("data:")]
        expect(lines[-1:] == ["[DONE]"], "a stream that ends with [DONE]", self.text[-SHOWN_CHARACTERS:])
        chunks = [parsed(line) for line in lines[:-1]]
        expect(not any("error" in chunk for chunk in chunks), "a stream without an error event", self.text)
        return chunks


@dataclass(frozen=True)
class Gateway:
    """One gateway, and how to ask it."""

    url: str

    def is_up(self) -> bool:
        try:
            return self._request("GET", "/healthz", None, {}, timeout_s=2).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def chat(self, key: str, body: dict[str, Any]) -> Answer:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        try:
            return self._request("POST", "/v1/chat/completions", json.dumps(body), headers, TIMEOUT_S)
        except (OSError, http.client.HTTPException) as exc:
            raise Unexpected(f"expected an answer\n     got {type(exc).__name__}: {exc}") from exc

    def _request(self, method: str, path: str, body: str | None, headers: dict[str, str], timeout_s: float) -> Answer:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=timeout_s)
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers.get_content_type(), response.read().decode("utf-8"))
        finally:
            connection.close()


def only_choice(document: dict[str, Any]) -> dict[str, Any]:
    choices = document.get("choices")
    expect(isinstance(choices, list) and len(choices) == 1, "one choice", document)
    return dict(document["choices"][0])


def joined(chunks: list[dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    """The message and the finish reason that a stream's chunks add up to."""
    content, finish_reason = "", None
    calls: dict[int, dict[str, Any]] = {}
    for choice in (choice for chunk in chunks for choice in chunk.get("choices") or []):
        content += choice["delta"].get("content") or ""
        finish_reason = choice.get("finish_reason") or finish_reason
        for piece in choice["delta"].get("tool_calls") or []:
            call = calls.setdefault(piece["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
            call["id"] = piece.get("id") or call.get("id")
            for name, text in piece.get("function", {}).items():
                call["function"][name] += text or ""
    message: dict[str, Any] = {"role": "assistant", "content": content or None}
    return (message | {"tool_calls": list(calls.values())} if calls else message), finish_reason


def weather(message: dict[str, Any]) -> dict[str, Any]:
    """Run the tool that the message calls, as an agent would: the message to answer with."""
    calls = message.get("tool_calls") or []
    expect(len(calls) >= 1, "a tool call", message)
    function = calls[0]["function"]
    expect(function["name"] == "get_weather", "a call of get_weather", function)
    arguments = parsed(function["arguments"])
    expect("city" in arguments, "the argument 'city'", arguments)
    return {"role": "tool", "tool_call_id": calls[0]["id"], "content": json.dumps({"celsius": 21, **arguments})}


@dataclass
class Agent:
    """A conversation with one model. Every method is a turn, and says what it saw."""

    gateway: Gateway
    key: str
    model: str

    def turns(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "plain answer", self.plain
        yield "streamed answer", self.streamed
        yield "tool call and its result", self.tool
        yield "streamed tool call and its result", self.streamed_tool
        yield "wrong key", self.wrong_key
        yield "unknown model", self.unknown_model

    def plain(self) -> str:
        document = self._ask([QUESTION]).document(200)
        choice = only_choice(document)
        expect(bool(choice["message"].get("content")), "an answer with content", document)
        expect(document.get("usage", {}).get("total_tokens", 0) > 0, "a usage", document)
        return f"{document['usage']['total_tokens']} tokens"

    def streamed(self) -> str:
        chunks = self._ask([QUESTION], stream=True, stream_options={"include_usage": True}).chunks()
        message, finish_reason = joined(chunks)
        expect(bool(message["content"]) and finish_reason is not None, "content and a finish_reason", chunks)
        expect((chunks[-1].get("usage") or {}).get("total_tokens", 0) > 0, "a usage in the last chunk", chunks[-1])
        return f"{len(chunks)} chunks"

    def tool(self) -> str:
        choice = only_choice(self._ask([QUESTION], tools=[TOOL]).document(200))
        expect(choice["finish_reason"] == "tool_calls", "the finish_reason tool_calls", choice)
        return self._answer_tool(choice["message"])

    def streamed_tool(self) -> str:
        message, finish_reason = joined(self._ask([QUESTION], tools=[TOOL], stream=True).chunks())
        expect(finish_reason == "tool_calls", "the finish_reason tool_calls", finish_reason)
        return self._answer_tool(message)

    def wrong_key(self) -> str:
        return self._refused(401, "invalid_api_key", f"not-{self.key}", self.model)

    def unknown_model(self) -> str:
        return self._refused(404, "model_not_found", self.key, "no-such-model")

    def _ask(self, messages: list[dict[str, Any]], **fields: Any) -> Answer:
        return self.gateway.chat(self.key, {"model": self.model, "messages": messages, **fields})

    def _answer_tool(self, message: dict[str, Any]) -> str:
        result = weather(message)
        document = self._ask([QUESTION, message, result], tools=[TOOL]).document(200)
        expect(bool(only_choice(document)["message"].get("content")), "an answer with content", document)
        return f"{message['tool_calls'][0]['function']['name']}, then an answer"

    def _refused(self, status: int, code: str, key: str, model: str) -> str:
        document = self.gateway.chat(key, {"model": model, "messages": [QUESTION]}).document(status)
        expect(document.get("error", {}).get("code") == code, f"the error code {code}", document)
        return f"{status} {code}"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--is-up"]:
        return 0 if Gateway(arguments[1]).is_up() else 1
    url, key, model = arguments
    agent = Agent(Gateway(url), key, model)
    for step, turn in agent.turns():
        try:
            print(f"ok     {step}: {turn()}", flush=True)
        except Unexpected as exc:
            print(f"FAILED {step}: {exc}", file=sys.stderr)
            return 1
        except (LookupError, TypeError, ValueError, AttributeError) as exc:  # an answer of quite another shape
            print(f"FAILED {step}: expected an answer as the API gives it\n     got {exc!r}", file=sys.stderr)
            return 1
    print("all steps passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
