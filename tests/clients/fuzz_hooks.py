"""What schemathesis is told of us: real models and ids, so that it gets past the doors; OpenAI's own types for answers.

Loaded by `schemathesis run` (SCHEMATHESIS_HOOKS). FUZZ_POOL is a file of {collection: [ids]}, FUZZ_NOTES one to which a
line is added for every answer: method, path, status and whether its shape was looked at.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from array import array
from pathlib import Path
from typing import Any

import schemathesis
from anthropic.types import Message, MessageTokensCount
from ollama import ChatResponse, EmbedResponse, GenerateResponse, ListResponse
from openai.types import (
    Batch,
    Completion,
    CreateEmbeddingResponse,
    FileDeleted,
    FileObject,
    ImageEditStreamEvent,
    ImageGenStreamEvent,
    ImagesResponse,
    Model,
    ModelDeleted,
    ModerationCreateResponse,
    Upload,
    VectorStore,
    VectorStoreDeleted,
    VectorStoreSearchResponse,
)
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionDeleted,
    ChatCompletionStoreMessage,
)
from openai.types.eval_create_response import EvalCreateResponse
from openai.types.eval_delete_response import EvalDeleteResponse
from openai.types.evals.run_create_response import RunCreateResponse
from openai.types.evals.run_delete_response import RunDeleteResponse
from openai.types.evals.runs.output_item_retrieve_response import OutputItemRetrieveResponse
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.responses import Response as Answer
from openai.types.responses import ResponseItem, ResponseStreamEvent
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from openai.types.uploads import UploadPart
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileBatch, VectorStoreFileDeleted
from pydantic import TypeAdapter, ValidationError

MODELS = ("apprentice", "universal-sentence-encoder", "gpt-4o-mini")
PAINTERS = ("painter", "painter", "apprentice")
SHAPES: dict[str, Any] = {  # lists are looked at item by item
    "POST /v1/chat/completions": ChatCompletion,
    "GET /v1/chat/completions": ChatCompletion,
    "GET /v1/chat/completions/{id}": ChatCompletion,
    "POST /v1/chat/completions/{id}": ChatCompletion,
    "DELETE /v1/chat/completions/{id}": ChatCompletionDeleted,
    "GET /v1/chat/completions/{id}/messages": ChatCompletionStoreMessage,
    "POST /v1/completions": Completion,
    "POST /v1/responses": Answer,
    "GET /v1/responses/{id}": Answer,
    "POST /v1/responses/{id}/cancel": Answer,
    "GET /v1/responses/{id}/input_items": ResponseItem,
    "POST /v1/responses/input_tokens": InputTokenCountResponse,
    "POST /v1/embeddings": CreateEmbeddingResponse,
    "POST /v1/moderations": ModerationCreateResponse,
    "POST /v1/files": FileObject,
    "GET /v1/files": FileObject,
    "GET /v1/files/{id}": FileObject,
    "DELETE /v1/files/{id}": FileDeleted,
    "POST /v1/uploads": Upload,
    "POST /v1/uploads/{id}/complete": Upload,
    "POST /v1/uploads/{id}/cancel": Upload,
    "POST /v1/uploads/{id}/parts": UploadPart,
    "POST /v1/batches": Batch,
    "GET /v1/batches": Batch,
    "GET /v1/batches/{id}": Batch,
    "POST /v1/batches/{id}/cancel": Batch,
    "POST /v1/fine_tuning/jobs": FineTuningJob,
    "GET /v1/fine_tuning/jobs": FineTuningJob,
    "GET /v1/fine_tuning/jobs/{id}": FineTuningJob,
    "POST /v1/fine_tuning/jobs/{id}/cancel": FineTuningJob,
    "POST /v1/fine_tuning/jobs/{id}/pause": FineTuningJob,
    "POST /v1/fine_tuning/jobs/{id}/resume": FineTuningJob,
    "GET /v1/fine_tuning/jobs/{id}/events": FineTuningJobEvent,
    "GET /v1/fine_tuning/jobs/{id}/checkpoints": FineTuningJobCheckpoint,
    "POST /v1/evals": EvalCreateResponse,
    "GET /v1/evals": EvalCreateResponse,
    "GET /v1/evals/{id}": EvalCreateResponse,
    "POST /v1/evals/{id}": EvalCreateResponse,
    "DELETE /v1/evals/{id}": EvalDeleteResponse,
    "POST /v1/evals/{id}/runs": RunCreateResponse,
    "GET /v1/evals/{id}/runs": RunCreateResponse,
    "GET /v1/evals/{id}/runs/{run}": RunCreateResponse,
    "POST /v1/evals/{id}/runs/{run}": RunCreateResponse,
    "POST /v1/evals/{id}/runs/{run}/cancel": RunCreateResponse,
    "DELETE /v1/evals/{id}/runs/{run}": RunDeleteResponse,
    "GET /v1/evals/{id}/runs/{run}/output_items": OutputItemRetrieveResponse,
    "GET /v1/evals/{id}/runs/{run}/output_items/{item}": OutputItemRetrieveResponse,
    "GET /v1/models": Model,
    "GET /v1/models/{model}": Model,
    "DELETE /v1/models/{model}": ModelDeleted,
    "POST /v1/vector_stores": VectorStore,
    "GET /v1/vector_stores": VectorStore,
    "GET /v1/vector_stores/{id}": VectorStore,
    "POST /v1/vector_stores/{id}": VectorStore,
    "DELETE /v1/vector_stores/{id}": VectorStoreDeleted,
    "POST /v1/vector_stores/{id}/search": VectorStoreSearchResponse,
    "POST /v1/vector_stores/{id}/files": VectorStoreFile,
    "GET /v1/vector_stores/{id}/files": VectorStoreFile,
    "GET /v1/vector_stores/{id}/files/{file_id}": VectorStoreFile,
    "POST /v1/vector_stores/{id}/files/{file_id}": VectorStoreFile,
    "DELETE /v1/vector_stores/{id}/files/{file_id}": VectorStoreFileDeleted,
    "POST /v1/vector_stores/{id}/file_batches": VectorStoreFileBatch,
    "GET /v1/vector_stores/{id}/file_batches/{batch}": VectorStoreFileBatch,
    "POST /v1/vector_stores/{id}/file_batches/{batch}/cancel": VectorStoreFileBatch,
    "GET /v1/vector_stores/{id}/file_batches/{batch}/files": VectorStoreFile,
    "POST /v1/images/generations": ImagesResponse,
    "POST /v1/images/edits": ImagesResponse,
    "POST /v1/images/variations": ImagesResponse,
    "POST /v1/messages": Message,
    "POST /v1/messages/count_tokens": MessageTokensCount,
    "POST /api/chat": ChatResponse,
    "POST /api/generate": GenerateResponse,
    "POST /api/embed": EmbedResponse,
    "GET /api/tags": ListResponse,
}
EVENTS: dict[str, Any] = {
    "POST /v1/chat/completions": ChatCompletionChunk,
    "POST /v1/completions": Completion,
    "POST /v1/responses": ResponseStreamEvent,
    "POST /v1/images/generations": ImageGenStreamEvent,
    "POST /v1/images/edits": ImageEditStreamEvent,
}
_POOL: dict[str, list[str]] = json.loads(Path(os.environ["FUZZ_POOL"]).read_text(encoding="utf-8"))
_NOTES = Path(os.environ["FUZZ_NOTES"])


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Three times of four an id that there is, or was."""
    path = context.operation.path
    return {name: _chosen(value, _POOL.get(path.partition(f"/{{{name}")[0], ())) if isinstance(value, str) else value
            for name, value in path_parameters.items()} if path_parameters else path_parameters  # fmt: skip


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """A model that there is, and short answers; what was wrong on purpose stays wrong."""
    if not isinstance(body, dict):
        return body
    body = dict(body)
    if isinstance(model := body.get("model"), str) and 0 < len(model) <= 500:
        body["model"] = _chosen(model, PAINTERS if "/images/" in context.operation.path else MODELS)
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "steps"):
        if isinstance(most := body.get(name), int) and most > 32:
            body[name] = 32
    return body


def _chosen(value: str, there: Any) -> str:
    """By the value itself, so that the same seed makes the same cases."""
    number = zlib.crc32(value.encode("utf-8", "replace"))
    return there[number // 4 % len(there)] if there and number % 4 else value


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """A list of texts in a query takes every text; `false` is one, though schemathesis meant it to be none."""
    return not ("include[]" in failure.message and "Invalid component" in failure.message)


@schemathesis.check
def known_shape(ctx: Any, response: Any, case: Any) -> None:
    """What the official client can read is what it is given."""
    operation = f"{case.operation.method.upper()} {case.operation.path}"
    kind = response.headers.get("content-type", [""])[0]
    looked = False
    if response.status_code == 200 and case.method.upper() == case.operation.method.upper():
        if kind.startswith("text/event-stream"):
            looked = _events(operation, response.text)
        elif kind.startswith("application/json"):
            looked = _whole(operation, response.json())
    elif kind.startswith("application/json") and response.status_code >= 400:
        told = response.json()["error"]
        assert isinstance(told, str) or set(told) == {"message", "type", "param", "code"}
    with _NOTES.open("a", encoding="utf-8") as notes:
        notes.write(json.dumps([case.method.upper(), case.operation.path, response.status_code, looked]) + "\n")


def _whole(operation: str, body: Any) -> bool:
    shape = SHAPES.get(operation)
    if shape is None:
        return False
    is_list = str(body.get("object")).endswith(("list", ".page")) and shape is not CreateEmbeddingResponse
    items = body["data"] if is_list else [body]
    for one in items[0]["data"] if shape is CreateEmbeddingResponse else ():
        if isinstance(one["embedding"], str):  # packed, as the client unpacks it
            one["embedding"] = array("f", base64.b64decode(one["embedding"])).tolist()
    for item in items:
        if item.get("purpose") == "evals":
            continue  # the client sends this purpose and has no type to read it
        _read(shape, item)
    return True


def _events(operation: str, text: str) -> bool:
    shape = EVENTS.get(operation)
    told = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    for one in told if shape else ():
        if one != "[DONE]" and "error" not in (event := json.loads(one)):
            _read(shape, event)
    return shape is not None and bool(told)


def _read(shape: Any, item: Any) -> None:
    try:
        TypeAdapter(shape).validate_python(item)
    except ValidationError as error:
        raise AssertionError(str(error)) from None
