"""/tokenize, /detokenize, /tokenizer_info: how a model splits a text, as vLLM has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field

from genwright.core import Message

from ..conversation import Strict, Turn, conversation
from ..errors import Wrong
from ..house import caller_of, house_of
from ..wire import documented, read_body

router = APIRouter()
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=1_000_000)]


class TokenizeRequest(Strict):
    """A text (`prompt`), or a conversation as the model sees it (`messages`)."""

    model: str = Field("", max_length=500)
    prompt: str | None = None
    messages: list[Turn] | None = Field(None, min_length=1, max_length=10_000)
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: Literal[True] | None = None
    continue_final_message: bool | None = None


class DetokenizeRequest(Strict):
    model: str = Field("", max_length=500)
    tokens: Tokens


@router.post("/tokenize", openapi_extra=documented(TokenizeRequest))
async def tokenize(request: Request) -> dict[str, Any]:
    """A text or a conversation as ids of tokens."""
    asked = await read_body(request, TokenizeRequest)
    fleet = house_of(request).fleet
    served = fleet.find(asked.model, caller_of(request))
    special = asked.add_special_tokens is not False and asked.messages is None
    tokens = await fleet.tokenize(served.id, _asked(asked), special=special)
    pieces = await fleet.pieces(served.id, tokens) if asked.return_token_strs else None
    return {"count": len(tokens), "max_model_len": fleet.facts(served).get("context") or 0, "tokens": tokens,
            "token_strs": pieces}  # fmt: skip


@router.post("/detokenize", openapi_extra=documented(DetokenizeRequest))
async def detokenize(request: Request) -> dict[str, Any]:
    """The text that ids of tokens stand for."""
    asked = await read_body(request, DetokenizeRequest)
    fleet = house_of(request).fleet
    served = fleet.find(asked.model, caller_of(request))
    return {"prompt": await fleet.detokenize(served.id, asked.tokens)}


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request, model: Annotated[str, Query(max_length=500)] = "") -> dict[str, Any]:
    """The tokenizer's class, its chat template and its special tokens."""
    fleet = house_of(request).fleet
    served = fleet.find(model, caller_of(request))
    found = await fleet.tokenizer_info(served.id)
    length = fleet.facts(served).get("context")
    return {"tokenizer_class": found["tokenizer_class"], "chat_template": found["chat_template"],
            "model_max_length": length, **found["special_tokens"]}  # fmt: skip


def _asked(asked: TokenizeRequest) -> str | tuple[Message, ...]:
    """Raises Wrong (400) when there are both or neither, or the last message is not to be gone on with."""
    if (asked.prompt is None) == (asked.messages is None):
        raise Wrong(400, "Give either prompt or messages.", param="prompt", code="invalid_value")
    if asked.messages is None:
        return asked.prompt or ""
    goes_on = asked.messages[-1].role == "assistant"
    if asked.continue_final_message is not None and asked.continue_final_message != goes_on:
        raise Wrong(400, "A last message of the assistant is gone on with here, and no other.",
                    param="continue_final_message", code="unsupported_value")  # fmt: skip
    return conversation(asked.messages)
