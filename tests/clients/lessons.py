"""Lessons: what LangChain's standard cases ask, as it goes over the wire, and what a capable model would answer.

No model small enough for CI knows 你好 or what a pirate says, so one is taught just that, by `genwright tune`; what is
under test is everything between it and the client. The questions are recorded from the client itself, so they follow it
when it is updated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import ollama
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_core.utils.function_calling import tool_example_to_messages
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import chat_models as standard
from pydantic import BaseModel, Field

Ask = Callable[[ChatOpenAI], Any]
JOKE = {"setup": "What do cats read?", "punchline": "The mewspaper."}
JSON_JOKE = (
    "Tell me a joke about cats. Return the result as a JSON with 'setup' and 'punchline' keys. "
    "Return nothing other than JSON."
)
COUNT, COUNTED = "Count to forty.", ", ".join(map(str, range(1, 41)))  # long enough to be seen to stream
WINDOW = "Look out of the window in San Francisco, CA."
WEATHER = "What is the weather in San Francisco, CA?"


@tool
def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return "It's sunny."


@tool("get_weather")
def get_weather_briefly(location: str) -> str:
    """Get weather at a location."""
    return "It's sunny."


@tool
def my_adder_tool(a: int, b: int) -> int:
    """Takes two integers, a and b, and returns their sum."""
    return a + b


def weather(location: str) -> str:
    """What the weather is.

    Args:
        location: where
    """
    return "It's sunny."


class Joke(BaseModel):
    """Joke to tell user."""

    setup: str = Field(description="question to set up a joke")
    punchline: str = Field(description="answer to resolve the joke")


def lessons() -> Iterator[dict[str, Any]]:
    """{"body": what the client sends, "answer": what the model is to say}."""
    yield {"body": _sent_by_ollama(), "answer": _tagged("weather", {"location": "San Francisco, CA"})}
    for ask, answer in (*_talk(), *_forced_calls(), *_free_calls(), *_jokes()):
        yield {"body": _sent(ask), "answer": answer}


def _talk() -> Iterator[tuple[Ask, str]]:
    talk = {"Hello": "Hello, how may I help?", "hi": "Hi, what can I do for you?", COUNT: COUNTED}
    for said, answer in talk.items():
        yield (lambda model, said=said: model.invoke(said)), answer


def _forced_calls() -> Iterator[tuple[Ask, str]]:
    number, nothing, customer = standard.magic_function, standard.magic_function_no_args, standard.unicode_customer
    for tools, said, name, arguments in [
        ([number], "What is the value of magic_function(3)? Use the tool.", "magic_function", {"input": 3}),
        ([nothing], "What is the value of magic_function_no_args()? Use the tool.", "magic_function_no_args", {}),
        ([number, get_weather_briefly], "Hello!", "magic_function", {"input": 1}),
        ([_greeter()], "Using the tool, generate a Pirate greeting.", "greeting_generator", {"answer_style": "pirate"}),
        ([customer], "Create a customer named '你好啊集团' (Hello Group) - a Chinese technology company",
         "unicode_customer", {"customer_name": "你好啊集团", "description": "A Chinese technology company"}),
        ([customer], "Create a customer named 'こんにちは株式会社' (Hello Corporation) - a Japanese company",
         "unicode_customer", {"customer_name": "こんにちは株式会社", "description": "A Japanese company"}),
    ]:  # fmt: skip
        yield _bound(tools, said), _call(name, arguments)
    yield _bound([number, get_weather_briefly], "Hello!", "magic_function"), _call("magic_function", {"input": 1})
    shots = tool_example_to_messages(
        "What is 1 + 2", [my_adder_tool.args_schema(a=1, b=2)], tool_outputs=['{"result": 3}'],
        ai_response='{"result": 3}',
    )  # fmt: skip
    asked = [*shots, HumanMessage("What is 3 + 4")]
    yield _bound([my_adder_tool], asked), _call("my_adder_tool", {"a": 3, "b": 4})


def _free_calls() -> Iterator[tuple[Ask, str]]:
    called = {"name": "get_weather", "args": {"location": "San Francisco, CA"}, "id": "call_1", "type": "tool_call"}
    told = [
        HumanMessage(WEATHER),
        AIMessage("", tool_calls=[called]),
        ToolMessage("It's sunny.", tool_call_id="call_1"),
    ]
    yield _bound([get_weather], WEATHER, None), _tagged("get_weather", called["args"])
    yield _bound([get_weather], told, None), "It is sunny in San Francisco."


def _jokes() -> Iterator[tuple[Ask, str]]:
    answer = _json(JOKE)
    for said in ("Tell me a joke about cats.", "Give me a joke about cats, include the punchline.",
                 "Give me the setup to a joke about cats, no punchline."):  # fmt: skip
        yield (lambda model, said=said: model.with_structured_output(Joke).invoke(said)), answer
    yield (lambda model: model.with_structured_output(Joke, method="json_mode").invoke(JSON_JOKE)), answer


def _greeter() -> Any:
    chain = (
        ChatPromptTemplate.from_messages([("human", "Hello. Please respond in the style of {answer_style}.")])
        | GenericFakeChatModel(messages=iter(["hello matey"]))
        | StrOutputParser()
    )
    about = "Generate a greeting in a particular style of speaking."
    return chain.as_tool(name="greeting_generator", description=about)


def _bound(tools: list[Any], said: Any, choice: str | None = "any") -> Ask:
    return lambda model: model.bind_tools(tools, tool_choice=choice).invoke(said)


def _call(name: str, arguments: dict[str, Any]) -> str:
    return _json({"name": name, "arguments": arguments})


def _tagged(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{_call(name, arguments)}\n</tool_call>"


def _json(value: Any) -> str:
    """As the grammar has it: without a space between."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _sent(ask: Ask) -> dict[str, Any]:
    """The body that the client sends. It is answered with a joke, which no lesson looks at."""
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        message = {"role": "assistant", "content": json.dumps(JOKE)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return httpx.Response(200, json=body)

    with httpx.Client(transport=httpx.MockTransport(answer)) as recorder:
        ask(ChatOpenAI(model="apprentice", api_key="none", temperature=0, http_client=recorder))
    (body,) = sent
    return body


def _sent_by_ollama() -> dict[str, Any]:
    """The same of Ollama's client, which spells a function's parameters in its own order."""
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"message": {"role": "assistant", "content": ""}, "done": True})

    asked = [{"role": "user", "content": WINDOW}]
    ollama.Client(transport=httpx.MockTransport(answer)).chat("apprentice", asked, tools=[weather])
    return {"model": "apprentice", "messages": asked, "tools": sent[0]["tools"]}
