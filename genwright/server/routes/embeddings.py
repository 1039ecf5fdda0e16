"""/v1/embeddings: texts as vectors of length 1, for comparing what they mean."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from ..answers import Asking, reply
from ..conversation import Strict
from ..errors import Wrong
from ..leaving import unless_gone
from ..wire import documented, read_body
from .completions import Ids

router = APIRouter()
_MOST = 2048  # inputs at once, as OpenAI

Text = Annotated[str, Field(min_length=1)]


class EmbeddingRequest(Strict):
    """`dimensions` cuts the vectors and gives them length 1 again; `base64` packs them as little-endian float32."""

    model: str = Field(min_length=1, max_length=500)
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=_MOST)] | Ids | Annotated[
        list[Ids], Field(min_length=1, max_length=_MOST)]  # fmt: skip
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64"] | None = None


@router.post("/v1/embeddings", openapi_extra=documented(EmbeddingRequest, passed_over=("user",)))
async def create(request: Request) -> Response:
    """Vectors of texts."""
    asked = await read_body(request, EmbeddingRequest, passed_over=("user",))
    return reply(request, await unless_gone(request, whole(Asking.of(request, asked.model), asked)))


async def whole(asking: Asking, asked: EmbeddingRequest) -> dict[str, Any]:
    """The body of the answer. Raises Wrong (400) for more dimensions than the model has."""
    texts = await asking.texts(asked.input)
    vectors, tokens = await asking.house.desk.embed(asking.caller, asking.model, texts, deadline=asking.deadline)
    vectors = [_cut(vector, asked.dimensions) for vector in vectors]
    packed = [_packed(vector) if asked.encoding_format == "base64" else vector for vector in vectors]
    data = [{"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(packed)]
    return {"object": "list", "data": data, "model": asking.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}  # fmt: skip


def _cut(vector: Sequence[float], dimensions: int | None) -> list[float]:
    if dimensions is None or dimensions == len(vector):
        return list(vector)
    if dimensions > len(vector):
        said = f"This model's vectors have {len(vector)} dimensions."
        raise Wrong(400, said, param="dimensions", code="invalid_value")
    kept = vector[:dimensions]
    length = math.sqrt(sum(x * x for x in kept)) or 1.0
    return [x / length for x in kept]


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
