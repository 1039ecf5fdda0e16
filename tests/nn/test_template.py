"""Chat templates: the same words as transformers writes, and nothing else."""

import time

import pytest

from genwright.core import ModelError
from genwright.nn.template import LARGEST, MARKED, PLAIN, SECONDS, render

TURNS = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi {{ x }} <b>&"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "bye"},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nx<|im_end|>\n{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"  # noqa: E501
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}\n{%- set ns = namespace(n=0) %}\n{%- for message in messages %}\n    {%- set ns.n = ns.n + 1 %}\n"
    "    {%- if message.role == 'assistant' %}{% generation %}{{ message.content | trim }}{% endgeneration %}\n"
    "    {%- else %}{{- '<|' + message['role'] + '|>' + message.content | tojson(indent=2) }}\n    {%- endif %}\n"
    "    {%- if loop.last %}{{ '{:>3}|{}'.format(ns.n, message.content.upper()[::-1]) }}{% endif %}\n"
    "    {%- if ns.n > 8 %}{% break %}{% endif %}\n{%- endfor %}{{ messages | length }}"
    "{{ messages[1:] | map(attribute='role') | join(', ') }}"
    "{%- if tools is defined and tools %}tools{% endif %}{{ 'a' * 3 }}{{ 7 % 4 }}"
)


@pytest.mark.parametrize("template", [CHATML, LLAMA3, PLAIN, MARKED])
@pytest.mark.parametrize("prompt", [True, False])
def test_it_writes_what_transformers_writes(template, prompt):
    from transformers.utils.chat_template_utils import render_jinja_template

    for turns in (TURNS, TURNS[1:2]):
        theirs, _ = render_jinja_template([turns], chat_template=template, add_generation_prompt=prompt, **TOKENS)
        assert render(template, turns, prompt=prompt, tokens=TOKENS) == theirs[0]


def test_the_plain_templates_read_well():
    assert render(PLAIN, TURNS[1:3], prompt=True, tokens=TOKENS) == (
        "### Question\nhi {{ x }} <b>&\n\n### Answer\nyo</s>\n\n### Answer\n"
    )
    assert (
        render(MARKED, TURNS[1:3], prompt=False, tokens=TOKENS)
        == "<|user|>hi {{ x }} <b>&<|end|><|assistant|>yo<|end|>"
    )


HOSTILE = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('touch canary').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ ''['__class__'] }}{{ ''|attr('__class__') }}",
    "{{ '{0.__class__}'.format('') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ messages.append(1) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(60) }}",
    "{% for m in messages recursive %}{{ loop([m, m]) }}{% endfor %}",
    "{{ range(10 ** 9) | list }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 'a' | center(10 ** 10) }}",
    "{{ 'a'.center(10 ** 10) }}",
    "{{ '%10000000000s' | format('a') }}",
    "{{ '%10000000000s' % 'a' }}",
    "{{ '{:>10000000000}'.format('a') }}",
    "{{ '{:>{w}}'.format('a', w=10 ** 10) }}",
    "{{ 'a' | indent(10 ** 10) }}",
    "{{ messages | tojson(indent=10 ** 10) }}"
    + "{{ range(99999) | list | map('string') | map('center', 9999) | join }}",
    "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
    "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = ns.x | replace('a', 'aaaa') %}{% endfor %}",  # noqa: E501
    "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('a', 'aaaa') %}{% endfor %}",
    "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",  # noqa: E501
    "{% set x = [range(99999) | list] * 4000 %}{{ x | tojson | length }}",
    "{% set x = [range(99999) | list] * 4000 %}{{ x | string | length }}",
    "{% set x = [range(99999) | list] * 4000 %}{{ x }}",
    "{{ 'a' | urlize }}{{ lipsum(n=10 ** 9) }}",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_a_hostile_template_is_refused_within_a_second(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = time.process_time()
    with pytest.raises(ModelError, match="chat template") as error:
        render(template, TURNS, prompt=True, tokens=TOKENS)
    assert time.process_time() - started < 2 * SECONDS
    assert error.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if %}", "Expected"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 1 / 0 }}", "Zero"),
    ],
)
def test_a_template_that_objects_says_why(template, reason):
    with pytest.raises(ModelError, match=reason):
        render(template, TURNS, prompt=True, tokens=TOKENS)


def test_a_long_conversation_is_no_attack():
    turns = TURNS * 500 + [{"role": "user", "content": "x" * (LARGEST // 4)}]
    assert len(render(CHATML, turns, prompt=True, tokens=TOKENS)) > LARGEST // 4
