"""Completions: texts gone on with as they are, from words or tokens, and scored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.formats.tiny import SENTENCES, tokenizer

from .parlour import Parlour, client, lines, raw, wait_until

PROMPT = SENTENCES[0][:20]
ASK: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 8}


def _told(text: str) -> list[int]:
    return list(tokenizer()(text, add_special_tokens=False)["input_ids"])


def test_a_text_is_gone_on_with_without_a_template(talk: Any, lenient: Any) -> None:
    whole = talk.completions.create(**ASK)
    assert (whole.object, whole.choices[0].finish_reason) == ("text_completion", "length")
    assert whole.usage.completion_tokens == 8
    assert whole.usage.prompt_tokens == len(_told(PROMPT))
    chunks = list(lenient.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 8
    echoed = talk.completions.create(**ASK, echo=True)
    assert echoed.choices[0].text == PROMPT + whole.choices[0].text
    assert "".join(c.choices[0].text for c in lenient.completions.create(**ASK, stream=True, echo=True)) == (
        PROMPT + whole.choices[0].text)  # fmt: skip


def test_several_prompts_as_texts_or_tokens_give_the_same(talk: Any) -> None:
    alone = [talk.completions.create(**ASK | {"prompt": prompt}).choices[0].text for prompt in SENTENCES[:2]]
    texts = talk.completions.create(**ASK | {"prompt": SENTENCES[:2]})
    ids = talk.completions.create(**ASK | {"prompt": [_told(prompt) for prompt in SENTENCES[:2]]})
    one = talk.completions.create(**ASK | {"prompt": _told(SENTENCES[0])})
    assert [choice.text for choice in texts.choices] == [choice.text for choice in ids.choices] == alone
    assert [choice.index for choice in texts.choices] == [0, 1]
    assert one.choices[0].text == alone[0]
    more = talk.completions.create(**ASK | {"prompt": SENTENCES[:2], "n": 2, "best_of": 2, "seed": 1, "temperature": 2})
    assert [choice.index for choice in more.choices] == [0, 1, 2, 3]
    assert more.choices[0].text != more.choices[1].text
    assert more.usage.prompt_tokens == sum(len(_told(prompt)) for prompt in SENTENCES[:2])


def test_echo_with_logprobs_scores_the_prompt(talk: Any) -> None:
    scored = talk.completions.create(**ASK | {"max_tokens": 0}, echo=True, logprobs=2).choices[0]
    assert (scored.text, scored.finish_reason) == (PROMPT, "length")
    found = scored.logprobs
    assert "".join(found.tokens) == PROMPT
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]
    assert found.token_logprobs[0] == 0.0  # nothing stands before it
    assert all(value < 0 for value in found.token_logprobs[1:])
    assert all(len(top) <= 2 for top in found.top_logprobs)
    known = talk.completions.create(model="tiny", prompt=SENTENCES[1], max_tokens=0, echo=True, logprobs=0).choices[0]
    odd = talk.completions.create(model="tiny", prompt="qq zz xx", max_tokens=0, echo=True, logprobs=0).choices[0]
    mean = [sum(one.logprobs.token_logprobs) / len(one.logprobs.tokens) for one in (known, odd)]
    assert mean[0] > mean[1]  # it has learned the one by heart
    both = talk.completions.create(**ASK, echo=True, logprobs=2).choices[0]
    assert "".join(both.logprobs.tokens) == both.text
    assert both.logprobs.token_logprobs[: len(found.tokens)] == pytest.approx(found.token_logprobs)
    assert both.logprobs.text_offset[-1] < len(both.text)


def test_logprobs_are_streamed_with_their_places(parlour: Parlour, talk: Any) -> None:
    whole = talk.completions.create(**ASK, logprobs=1).choices[0].logprobs
    events = lines(parlour.address, "/v1/completions", ASK | {"logprobs": 1, "stream": True})
    chunks = [json.loads(line[6:]) for line in events[:-1]]
    found = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    assert [token for one in found for token in one["tokens"]] == whole.tokens
    assert [place for one in found for place in one["text_offset"]] == whole.text_offset


@pytest.mark.parametrize(("more", "param"), [
    ({"suffix": "x"}, "suffix"), ({"best_of": 2}, "best_of"), ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 0, "echo": True, "stream": True}, "max_tokens"), ({"prompt": 5}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ["a", 5]}, "prompt.1"), ({"prompt": [-1]}, "prompt.0"), ({"logprobs": 21}, "logprobs"), ({"n": 0}, "n"),
    ({"echo": True, "logprobs": 1, "stream": True}, "stream"), ({"messages": []}, "messages"),
])  # fmt: skip
def test_wrong_completions_are_told(parlour: Parlour, more: dict[str, Any], param: str) -> None:
    status, said, _ = raw(parlour.address, "POST", "/v1/completions", ASK | more)
    assert status == 400
    assert str(said["error"]["param"]).startswith(param.partition(".")[0])


def test_a_token_that_is_none_is_a_400(parlour: Parlour) -> None:
    status, said, _ = raw(parlour.address, "POST", "/v1/completions", ASK | {"prompt": [2**30]})
    assert status == 400
    assert f"There is no token {2**30}" in said["error"]["message"]


def test_a_client_that_leaves_stops_all_its_completions(parlour: Parlour) -> None:
    parlour.script.says(*["x"] * 1000, pause=0.02)
    ask = {"model": "says", "prompt": "a"}

    async def leave() -> None:
        async with client(parlour.address, openai.AsyncOpenAI) as made:
            asked = asyncio.ensure_future(made.completions.create(**ask, n=3))
            while parlour.script.running < 3 and not asked.done():
                await asyncio.sleep(0.02)
            assert asked.cancel(), asked

    asyncio.run(leave())
    assert wait_until(lambda: parlour.script.running == 0, 2.0)
