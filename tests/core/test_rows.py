"""Every spelling of a training row that the field uses becomes the same conversation; everything else is named."""

from pathlib import Path

import pytest

from genwright.core import Message, Part, assistant, system, user
from genwright.core.data import Example
from genwright.core.rows import read_row

ASKED, TOLD = "How deep is the sea?", "Eleven kilometres."
PLAIN = (user(ASKED), assistant(TOLD))
SHAPES = {
    "openai": {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": TOLD}]},
    "openai parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": ASKED}]},
            {"role": "assistant", "content": [TOLD]},
        ]
    },
    "sharegpt": {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": TOLD}]},
    "alpaca": {"instruction": ASKED, "input": "", "output": TOLD},
    "prompt": {"prompt": ASKED, "completion": TOLD},
    "prompt response": {"prompt": ASKED, "response": TOLD},
    "question": {"question": ASKED, "answer": TOLD},
    "source": {"source": ASKED, "target": TOLD},
    "input": {"input": ASKED, "output": TOLD},
    "query": {"query": ASKED, "response": TOLD},
    "prompt of messages": {
        "prompt": [{"role": "user", "content": ASKED}], "completion": [{"role": "assistant", "content": TOLD}]
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_same_conversation(shape):
    messages, meta = read_row(SHAPES[shape])
    assert messages == PLAIN
    assert meta == {}


@pytest.mark.parametrize("fields", [
    SHAPES["alpaca"] | {"system": "Be brief."}, SHAPES["sharegpt"] | {"system": "Be brief."},
    SHAPES["prompt"] | {"system": "Be brief."},
    {"messages": [{"role": "developer", "content": "Be brief."}, *SHAPES["openai"]["messages"]]},
])  # fmt: skip
def test_a_system_message_goes_first(fields):
    assert read_row(fields)[0] == (system("Be brief."), *PLAIN)


def test_alpaca_input_and_history():
    fields = {"instruction": "Translate.", "input": "Meer", "output": "sea", "history": [["Hi", "Hello"]]}
    assert read_row(fields)[0] == (user("Hi"), assistant("Hello"), user("Translate.\nMeer"), assistant("sea"))


def test_plain_text_and_labelled_text():
    assert read_row({"text": TOLD})[0] == (assistant(TOLD),)
    messages, meta = read_row({"text": ASKED, "label": 3})
    assert messages == (user(ASKED), assistant("3"))
    assert meta == {"label": 3}


CHOSEN, REJECTED = {"role": "assistant", "content": TOLD}, {"role": "assistant", "content": "Very."}


@pytest.mark.parametrize("fields", [
    {"prompt": ASKED, "chosen": TOLD, "rejected": "Very."},
    {"question": ASKED, "chosen": TOLD, "rejected": "Very."},
    {"prompt": [{"role": "user", "content": ASKED}], "chosen": TOLD, "rejected": "Very."},
    {"prompt": [{"role": "user", "content": ASKED}], "chosen": [CHOSEN], "rejected": [REJECTED]},
    {"input": {"messages": [{"role": "user", "content": ASKED}]}, "preferred_output": [CHOSEN],
     "non_preferred_output": [REJECTED]},
    {"chosen": [{"role": "user", "content": ASKED}, CHOSEN],
     "rejected": [{"role": "user", "content": ASKED}, REJECTED]},
    {"conversations": [{"from": "human", "value": ASKED}], "chosen": {"from": "gpt", "value": TOLD},
     "rejected": {"from": "gpt", "value": "Very."}},
    {"messages": [*SHAPES["openai"]["messages"]], "rejected_response": "Very."},
])  # fmt: skip
def test_preference_rows_keep_the_rejected_answer_aside(fields):
    messages, meta = read_row(fields)
    assert messages == PLAIN
    assert meta["rejected"] == assistant("Very.")


@pytest.mark.parametrize("name", ["image", "audio"])
def test_files_stand_where_the_words_say(name):
    files = [f"{name}1.x", f"{name}2.x"]
    fields = {"prompt": f"Left <{name}> and right <{name}>?", "completion": TOLD, f"{name}s": files}
    asked = read_row(fields)[0][0]
    assert [(p.kind, p.text or str(p.path)) for p in asked.parts] == [
        ("text", "Left "), (name, files[0]), ("text", " and right "), (name, files[1]), ("text", "?"),
    ]  # fmt: skip
    unmarked = read_row({"prompt": ASKED, "completion": TOLD, f"{name}s": files[:1]})[0][0]
    assert [p.kind for p in unmarked.parts] == [name, "text"]
    with pytest.raises(ValueError, match=f"1 files but the words have 2 <{name}>"):
        read_row(fields | {f"{name}s": files[:1]})


def test_meta_travels():
    _, meta = read_row(SHAPES["prompt"] | {"meta": {"page": 3}, "group": "g", "id": 7, "label": True})
    assert meta == {"page": 3, "group": "g", "id": 7, "label": True}


@pytest.mark.parametrize(("fields", "said"), [
    ({}, "unknown row shape"),
    ({"a": 1, "b": 2}, "keys ['a', 'b']"),
    ({"text": 5}, "`text` is int"),
    ({"text": None}, "`text` is NoneType"),
    ({"text": "a\0b"}, "NUL"),
    ({"text": "half \ud83d"}, "half a character"),
    ({"messages": "hello"}, "not a list of turns"),
    ({"messages": []}, "empty"),
    ({"messages": [5]}, "turn 0 is int"),
    ({"messages": [{"role": "king", "content": "x"}]}, "role 'king'"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "role ['user']"),
    ({"messages": [{"role": "user", "content": None}]}, "no words"),
    ({"messages": [{"role": "user", "content": "a\0"}]}, "NUL"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "without a path"),
    ({"messages": [{"role": "user", "content": [7]}]}, "part that is int"),
    ({"instruction": "x", "output": ["y"]}, "`assistant` is list"),
    ({"instruction": "x", "output": "y", "history": ["a"]}, "pairs"),
    ({"prompt": "x", "completion": {"a": 1}}, "`assistant` is dict"),
    ({"chosen": "a", "rejected": "b"}, "needs a `prompt`"),
    ({"prompt": "x", "chosen": "a", "rejected": 4}, "`rejected` is int"),
    ({"input": {}, "preferred_output": [], "non_preferred_output": []}, "needs `input` with `messages`"),
    ({"input": {"messages": [{"role": "user", "content": "x"}]}, "preferred_output": [], "non_preferred_output": []},
     "one message each"),
])  # fmt: skip
def test_what_is_no_row_is_said_in_a_sentence(fields, said):
    with pytest.raises(ValueError) as caught:
        read_row(fields)
    assert said in str(caught.value)


@pytest.mark.parametrize("shape", [*SHAPES, "preference"])
def test_an_example_survives_writing_and_reading(shape):
    fields = SHAPES.get(shape, {"prompt": ASKED, "chosen": TOLD, "rejected": "Very."})
    example = Example(*read_row(fields))
    assert Example.from_dict(example.as_dict()) == example
    assert isinstance(example.answer, Message)


# -- rows whose answer is a file -------------------------------------------------------------------------------------


def described(**fields):
    messages, meta = read_row(fields, gives="image")
    return messages, meta


def test_a_picture_is_the_answer_where_pictures_are_wanted_and_part_of_the_question_elsewhere():
    messages, _ = described(text="a cat", image="cat.png")
    assert [m.role for m in messages] == ["user", "assistant"]
    assert messages[0].text == "a cat"
    assert messages[1].parts == (Part("image", path=Path("cat.png")),)
    messages, _ = read_row({"prompt": "What is it?", "completion": "a cat", "image": "cat.png"})
    assert [part.kind for part in messages[0].parts] == ["image", "text"]


@pytest.mark.parametrize("given", [
    b"\x89PNG", {"bytes": b"\x89PNG", "path": None}, {"bytes": b"\x89PNG", "path": "x.png"}, [b"\x89PNG"],
])  # fmt: skip
def test_a_file_may_come_with_its_bytes(given):
    messages, _ = described(caption="a cat", image=given)
    assert messages[1].parts[0].meta == {"bytes": b"\x89PNG"}


def test_captions_in_several_languages_are_kept_and_the_first_is_asked():
    messages, meta = described(
        captions={"en": ["a cat", " "], "zh": "猫"}, image="cat.png", style="flat", concept="cat"
    )
    assert messages[0].text == "a cat"
    assert meta == {"captions": {"en": ["a cat"], "zh": ["猫"]}, "style": "flat", "concept": "cat"}
    assert described(captions=["one", "two"], image="x")[1]["captions"] == {"": ["one", "two"]}


def test_a_picture_to_be_changed_and_its_mask_stand_in_the_question():
    messages, _ = described(prompt="red", input_image="in.png", mask_image="mask.png", image="out.png", system="Paint.")
    assert [m.role for m in messages] == ["system", "user", "assistant"]
    assert [(p.kind, p.text) for p in messages[1].parts] == [("text", "red"), ("image", ""), ("image", "mask")]


def test_a_picture_without_words_is_an_answer_without_question():
    messages, _ = described(image="cat.png")
    assert [m.role for m in messages] == ["assistant"]


@pytest.mark.parametrize("fields", [{"caption": 3}, {"captions": 3}, {"captions": {"en": [3]}}, {"input_image": 5}])
def test_wrong_types_beside_a_picture_are_sentences(fields):
    with pytest.raises(ValueError, match="not "):
        described(image="a.png", **fields)
