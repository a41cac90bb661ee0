from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar

from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper

DESCRIPTOR: _descriptor.FileDescriptor

class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_UNSPECIFIED: _ClassVar[Operation]
    OPERATION_CHAT: _ClassVar[Operation]
    OPERATION_COMPLETIONS: _ClassVar[Operation]
    OPERATION_EMBEDDINGS: _ClassVar[Operation]

OPERATION_UNSPECIFIED: Operation
OPERATION_CHAT: Operation
OPERATION_COMPLETIONS: Operation
OPERATION_EMBEDDINGS: Operation

class ChatRequest(_message.Message):
    __slots__ = ("body", "model", "operation", "request_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    operation: Operation
    body: bytes
    def __init__(
        self,
        request_id: str | None = ...,
        model: str | None = ...,
        operation: Operation | str | None = ...,
        body: bytes | None = ...,
    ) -> None: ...

class ChatStreamRequest(_message.Message):
    __slots__ = ("body", "model", "operation", "request_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    operation: Operation
    body: bytes
    def __init__(
        self,
        request_id: str | None = ...,
        model: str | None = ...,
        operation: Operation | str | None = ...,
        body: bytes | None = ...,
    ) -> None: ...

class ChatResponse(_message.Message):
    __slots__ = ("body", "error", "finish_reason", "model", "usage")
    BODY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    model: str
    usage: Usage
    finish_reason: str
    error: Error
    def __init__(
        self,
        body: bytes | None = ...,
        model: str | None = ...,
        usage: Usage | _Mapping | None = ...,
        finish_reason: str | None = ...,
        error: Error | _Mapping | None = ...,
    ) -> None: ...

class ChatStreamResponse(_message.Message):
    __slots__ = ("body", "error", "finish_reason", "model", "usage")
    BODY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    model: str
    usage: Usage
    finish_reason: str
    error: Error
    def __init__(
        self,
        body: bytes | None = ...,
        model: str | None = ...,
        usage: Usage | _Mapping | None = ...,
        finish_reason: str | None = ...,
        error: Error | _Mapping | None = ...,
    ) -> None: ...

class Usage(_message.Message):
    __slots__ = ("completion_tokens", "prompt_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    def __init__(self, prompt_tokens: int | None = ..., completion_tokens: int | None = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "param", "status", "type")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    status: int
    message: str
    type: str
    code: str
    param: str
    def __init__(
        self,
        status: int | None = ...,
        message: str | None = ...,
        type: str | None = ...,
        code: str | None = ...,
        param: str | None = ...,
    ) -> None: ...
