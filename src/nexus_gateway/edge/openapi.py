"""Describes the hot routes, which FastAPI does not serve, so that `/docs` shows them.

For:      people who read `/docs` and tools that read `/openapi.json`. Nothing is validated by it.
Touches:  nothing.
"""

from typing import Any, Final

_MODEL: Final = {"type": "string", "description": "A name from `GET /v1/models`."}
_STREAM: Final = {"type": "boolean", "default": False, "description": "Answer as server-sent events."}
_CHAT: Final = {"model": "mock", "messages": [{"role": "user", "content": "hello"}]}

_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS: Final = {
    "400": "The body is not what the API asks for; `param` names the field.",
    "401": "No valid API key.",
    "404": "No such model.",
    "413": "The body is over the limit.",
    "429": "A limit is used up; `Retry-After` tells the wait.",
    "502": "No upstream gave a valid answer.",
    "503": "The gateway or its upstreams take no more just now.",
    "504": "No upstream answered in time.",
}

SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def add_hot_routes(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the data plane's paths in it."""
    document["paths"] = {**_paths(), **document.get("paths", {})}
    document.setdefault("components", {})["securitySchemes"] = SECURITY
    return document


def _paths() -> dict[str, Any]:
    return {
        "/v1/chat/completions": _post(
            "Chat completion",
            {"model": _MODEL, "messages": {"type": "array", "items": {"type": "object"}}, "stream": _STREAM},
            {
                "plain": {"summary": "An answer in one piece", "value": _CHAT},
                "stream": {"summary": "Token by token", "value": {**_CHAT, "stream": True}},
            },
        ),
        "/v1/completions": _post(
            "Completion",
            {"model": _MODEL, "prompt": {"type": ["string", "array"]}, "stream": _STREAM},
            {"plain": {"summary": "A text continued", "value": {"model": "mock", "prompt": "Once upon a time"}}},
        ),
        "/v1/embeddings": _post(
            "Embeddings",
            {"model": _MODEL, "input": {"type": ["string", "array"]}},
            {"plain": {"summary": "Two texts", "value": {"model": "mock", "input": ["hello", "안녕하세요"]}}},
        ),
        "/v1/models": {"get": _get("The models that the caller may use")},
        "/v1/models/{id}": {
            "get": {
                **_get("One model"),
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            }
        },
    }


def _post(summary: str, properties: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "tags": ["inference"],
            "summary": summary,
            "description": "Fields that are not listed pass through to the upstream untouched.",
            "security": [{name: []} for name in SECURITY],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": properties,
                            "required": [name for name in properties if name != "stream"],
                            "additionalProperties": True,
                        },
                        "examples": examples,
                    }
                },
            },
            "responses": {"200": _ok("The answer, as the upstream gave it."), **_failures()},
        }
    }


def _get(summary: str) -> dict[str, Any]:
    return {
        "tags": ["models"],
        "summary": summary,
        "security": [{name: []} for name in SECURITY],
        "responses": {"200": _ok(summary), **{status: _failures()[status] for status in ("401", "404")}},
    }


def _ok(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}


def _failures() -> dict[str, Any]:
    return {
        status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for status, text in _ERRORS.items()
    }
