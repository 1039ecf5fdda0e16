"""Embeddings: texts as vectors, as numbers or packed, whole or cut."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import openai
import pytest

from .parlour import Parlour, raw

ENCODER = "universal-sentence-encoder"


def test_vectors_are_the_same_as_numbers_and_packed(talk: Any, lenient: Any) -> None:
    plain = talk.embeddings.create(model=ENCODER, input=["a cat", "a dog"], encoding_format="float")
    packed = lenient.embeddings.create(model=ENCODER, input=["a cat", "a dog"])  # it asks for base64 by itself
    assert [one.index for one in plain.data] == [0, 1]
    for one, other in zip(plain.data, packed.data, strict=True):
        assert other.embedding == pytest.approx(one.embedding, abs=1e-6)
        assert math.fsum(x * x for x in one.embedding) == pytest.approx(1.0, abs=1e-5)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 2
    raw_text = talk.embeddings.with_raw_response.create(model=ENCODER, input="a cat", encoding_format="base64").text
    said = json.loads(raw_text)["data"][0]["embedding"]
    assert list(struct.unpack("<512f", base64.b64decode(said))) == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_fewer_dimensions_are_cut_and_have_length_one(talk: Any) -> None:
    whole = talk.embeddings.create(model=ENCODER, input="a cat", encoding_format="float").data[0].embedding
    fewer = talk.embeddings.create(model=ENCODER, input="a cat", encoding_format="float", dimensions=64)
    short = fewer.data[0].embedding
    length = math.sqrt(math.fsum(x * x for x in whole[:64]))
    assert short == pytest.approx([x / length for x in whole[:64]], abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="512 dimensions"):
        talk.embeddings.create(model=ENCODER, input="a cat", dimensions=513)


@pytest.mark.parametrize(("more", "status"), [
    ({"input": ""}, 400), ({"input": []}, 400), ({"input": ["a", ""]}, 400), ({"input": None}, 400),
    ({"input": ["a"] * 2049}, 400), ({"dimensions": 0}, 400), ({"encoding_format": "hex"}, 400), ({"other": 1}, 400),
    ({"model": "nothing"}, 404), ({"model": "says"}, 400), ({"model": "tiny"}, 400),
])  # fmt: skip
def test_wrong_embeddings_are_told(parlour: Parlour, more: dict[str, Any], status: int) -> None:
    found, said, _ = raw(parlour.address, "POST", "/v1/embeddings", {"model": ENCODER, "input": "a"} | more)
    assert (found, set(said["error"])) == (status, {"message", "type", "param", "code"})
