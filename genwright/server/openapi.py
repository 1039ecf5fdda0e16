"""OpenAPI: the document of our own API, complete: bodies, errors, who needs a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from .app import enter, enter_as_admin, known, modules

_ERROR = {
    "type": "object", "required": ["error"], "properties": {"error": {
        "type": "object", "required": ["message", "type", "param", "code"], "additionalProperties": False,
        "properties": {
            "message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"]}}}}}  # fmt: skip
_OLLAMA_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
                 "additionalProperties": False}  # fmt: skip


def document_of(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of every route: bodies read by wire.py, the four-key error, which paths need a key."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, routes=app.routes,
            description="OpenAI's API on your own machine. Send your key as `Authorization: Bearer gw-…`.",
        )  # fmt: skip
        _complete(found)
        app.openapi_schema = found
    return app.openapi_schema


def _complete(found: dict[str, Any]) -> None:
    parts = found.setdefault("components", {})
    shapes = parts.setdefault("schemas", {})
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "A key of this server"}}
    found["tags"] = []
    for module in modules():
        tag = module.__name__.rpartition(".")[2]
        about = (module.__doc__ or "").partition("\n")[0]
        found["tags"].append({"name": tag, "description": about})
        for route in module.router.routes:
            needs_key = not getattr(module, "PUBLIC", False) or any(
                needed.dependency in (enter, enter_as_admin, known) for needed in route.dependencies
            )
            for method in route.methods:
                operation = found["paths"].get(route.path_format, {}).get(method.lower())
                if operation:
                    operation |= {"tags": [tag], "security": [{"key": []}] if needs_key else []}
                    _complete_operation(operation, shapes, route.path_format)
    for unused in ("HTTPValidationError", "ValidationError"):
        shapes.pop(unused, None)
    shapes |= {"Error": _ERROR, "OllamaError": _OLLAMA_ERROR}
    found["tags"] = [tag for tag in found["tags"] if any(tag["name"] in op["tags"] for _, _, op in operations(found))]


def _complete_operation(operation: dict[str, Any], shapes: dict[str, Any], path: str) -> None:
    about = operation.get("description", "")
    operation["summary"] = about.partition("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")
    operation["responses"].pop("422", None)  # we answer 400
    shape = f"#/components/schemas/{'OllamaError' if path.startswith('/api/') else 'Error'}"
    wrong = {"description": "What went wrong, and what to do next",
             "content": {"application/json": {"schema": {"$ref": shape}}}}  # fmt: skip
    operation["responses"] |= {"4XX": wrong, "5XX": wrong}
    for body in operation.get("requestBody", {}).get("content", {}).values():
        shapes |= body["schema"].pop("$defs", {})


def operations(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, method, operation) of a document."""
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation
