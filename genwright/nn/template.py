"""Chat templates: rendered in a sandbox that can neither reach Python nor run for long.

A template comes with a model from a stranger. It gets the same names as in transformers (`messages`, `tools`, special
tokens, `add_generation_prompt`, `raise_exception`, `strftime_now`, `tojson`, `{% generation %}`, loop controls), in
jinja2's immutable sandbox, and besides: every turn of a loop and every call looks at a clock, and nothing that
multiplies text may grow past a bound.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from genwright.core.errors import ModelError

SECONDS = 0.5  # a real template takes well under a millisecond a message
LARGEST = 4_000_000  # characters of anything a template builds

PLAIN = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{{ message['content'] + '\\n\\n' }}
{%- elif message['role'] == 'assistant' -%}{{ '### Answer\\n' + message['content'] + eos_token + '\\n\\n' }}
{%- else -%}{{ '### ' + ('Question' if message['role'] == 'user' else 'Tool') + '\\n' + message['content'] + '\\n\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '### Answer\\n' }}{%- endif -%}
"""  # for models that come without a template: plain words, so that a pretrained model already half knows it

MARKED = """\
{%- for message in messages -%}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}
"""  # for tokenizers that we train ourselves: each role is one token


def render(template: str, messages: Sequence[dict[str, Any]], *, prompt: bool, tokens: dict[str, str]) -> str:
    """A conversation as the text that the model sees; `prompt` adds the beginning of an answer.

    `tokens` are the special tokens by name (bos_token, eos_token …). Raises ModelError for a template that does not
    compile, reaches for what it must not, runs longer than `SECONDS`, or objects to the conversation.
    """
    from jinja2 import TemplateError

    try:
        compiled, start = _compile(template)
        start()
        text: str = compiled.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **tokens
        )
    except TemplateError as error:
        raise ModelError(
            f"The model's chat template cannot show this conversation: {error.message or type(error).__name__}",
            "Check the order of roles; or put a chat_template.jinja of your own into the model folder.",
        ) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise ModelError(
            f"The model's chat template fails: {type(error).__name__}: {str(error)[:200]}",
            "Put a chat_template.jinja of your own into the model folder.",
        ) from None
    return text


@lru_cache(maxsize=32)
def _compile(source: str) -> tuple[Any, Callable[[], None]]:
    """The template, and what starts its clock."""
    from jinja2 import Template, nodes

    environment = _sandbox()
    tree = environment.parse(source)
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = nodes.Filter(loop.iter, "watched", [], [], None, None, lineno=loop.lineno)
    for join in list(tree.find_all(nodes.Concat)):
        join.nodes = [nodes.Filter(node, "printed", [], [], None, None, lineno=join.lineno) for node in join.nodes]
    tree.set_environment(environment)
    code = environment.compile(tree, "chat_template")
    return Template.from_code(environment, code, environment.make_globals(None)), environment.restart


def _sandbox() -> Any:
    import jinja2.ext
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}…{% endgeneration %}` only marks a span; we find answers by ourselves."""

        tags = {"generation"}  # noqa: RUF012  (jinja declares it so)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})
        deadline = 0.0

        def restart(self) -> None:
            self.deadline = time.monotonic() + SECONDS

        def look_at_the_clock(self) -> None:
            if time.monotonic() > self.deadline:
                raise SecurityError(f"it ran longer than {SECONDS:g} seconds")

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            self.look_at_the_clock()
            if operator == "**" and not (abs(left) < 1_000_000 and abs(right) < 64):
                raise SecurityError("it raises numbers to large powers")
            if operator == "*" and isinstance(left, int) and isinstance(right, int) and left.bit_length() > 4096:
                raise SecurityError("it multiplies large numbers")
            if operator == "*" and hasattr(left, "__len__") != hasattr(right, "__len__"):
                length, times = (len(left), right) if hasattr(left, "__len__") else (len(right), left)
                if length * times > LARGEST:
                    raise SecurityError("it repeats text too often")
            if operator == "%" and not isinstance(left, (int, float)):
                raise SecurityError("it formats text with %")
            return bounded(super().call_binop(context, operator, left, right))

        def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
            self.look_at_the_clock()
            return bounded(super().call(context, called, *args, **kwargs))

        def wrap_str_format(self, value: Any) -> Any:
            wrapped = super().wrap_str_format(value)
            if wrapped is not None and re.search(r":[^}]*(\d{3}|\{)", value.__self__):
                raise SecurityError("it formats text to a large width")
            return wrapped

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            raise SecurityError(f"it reaches for {attribute!r} of {type(obj).__name__!r}, which is unsafe")

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            grows = ("ljust", "rjust", "center", "zfill", "expandtabs", "format_map", "translate", "to_bytes")
            return super().is_safe_attribute(obj, attr, value) and attr not in grows

    def watched(values: Iterable[Any]) -> Any:
        environment.look_at_the_clock()
        return _Watched(values, environment.look_at_the_clock)

    def bounded(value: Any) -> Any:
        if isinstance(value, (str, bytes, list, tuple, dict)) and len(value) > LARGEST:
            raise SecurityError("it builds too long a text")
        return value

    def printed(value: Any) -> Any:
        """A value about to become text: lists may hold one another many times over."""
        if isinstance(value, (list, tuple, dict)) and _weight(value, LARGEST) > LARGEST:
            raise SecurityError("it builds too long a text")
        return bounded(value)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        printed(value)
        indent = None if indent is None else min(int(indent), 16)
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def guarded(known: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that multiplies, with its numbers and its result bounded."""

        def filter_(value: Any, *args: Any, **kwargs: Any) -> Any:
            environment.look_at_the_clock()
            if any(isinstance(a, int) and a > 10_000 for a in (*args, *kwargs.values())):
                raise SecurityError("it asks a filter for too much")
            bounded(value)
            return bounded(known(value, *args, **kwargs))

        return filter_

    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols], finalize=printed
    )
    plain = {n: f for n, f in environment.filters.items() if not hasattr(f, "jinja_pass_arg")}
    environment.filters.update({name: guarded(plain[name]) for name in ("center", "batch", "slice") if name in plain})
    for name in ("format", "xmlattr", "urlize", "wordwrap", "pprint"):
        environment.filters.pop(name, None)
    for name in ("join", "replace", "indent", "string"):
        environment.filters[name] = _bounded_filter(environment.filters[name], environment, printed)
    environment.filters |= {"tojson": tojson, "watched": watched, "printed": printed}
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": lambda f: datetime.now().strftime(f)}
    return environment


def _weight(value: Any, budget: int) -> int:
    """About how many characters a value has as text; stops counting past the budget."""
    if isinstance(value, str):
        return len(value) + 2
    if not isinstance(value, (list, tuple, dict)):
        return 4
    total = 2
    for item in value.items() if isinstance(value, dict) else value:
        total += _weight(item, budget - total)
        if total > budget:
            break
    return total


def _bounded_filter(known: Callable[..., Any], environment: Any, bounded: Callable[[Any], Any]) -> Callable[..., Any]:
    """`join`, `replace` and `indent` take jinja's context first; what they may produce is bounded beforehand."""
    from functools import wraps

    from jinja2.exceptions import SecurityError

    @wraps(known)
    def filter_(*args: Any, **kwargs: Any) -> Any:
        environment.look_at_the_clock()
        values = (*args, *kwargs.values())
        for value in values:
            bounded(value)
        lengths = [len(a) for a in values if isinstance(a, (str, list, tuple))]
        widths = [a for a in values if isinstance(a, int) and not isinstance(a, bool)]
        pieces = [len(str(x)) for a in values if isinstance(a, (list, tuple)) for x in a if isinstance(x, str)]
        texts = sorted((len(a) for a in values if isinstance(a, str)), reverse=True)
        growth = texts[0] * (1 + max([0, *texts[1:], *widths])) if texts else 0
        if max([0, *lengths]) > LARGEST or sum(pieces) > LARGEST or growth > 100 * LARGEST:
            raise SecurityError("it builds too long a text")
        return bounded(known(*args, **kwargs))

    return filter_


class _Watched(Sequence[Any]):
    """What a loop runs over: each turn looks at the clock; length and items stay as they were."""

    def __init__(self, values: Iterable[Any], look: Callable[[], None]):
        self.values: Any = values if isinstance(values, (list, tuple, range, str)) else list(values)
        self.look = look

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __iter__(self) -> Iterator[Any]:
        for value in self.values:
            self.look()
            yield value
