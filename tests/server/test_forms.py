"""Forms as clients send them: one part a name, several where the name says that it is a list."""

import pytest
from python_multipart.multipart import MultipartParser

from genwright.server.errors import Wrong
from genwright.server.forms import Form, _Reading


def read(*parts):
    form = Form()
    reading = _Reading(form, {"file": 1}, list, largest=1000, field=1000)
    body = "".join(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in parts)
    MultipartParser(b"x", reading.callbacks()).write(f"{body}--x--\r\n".encode())
    return form.fields


def test_a_list_has_as_many_parts_as_members():
    assert read(("a", "1"), ("g[]", "word"), ("g[]", "segment"), ("b[c]", "2")) == {
        "a": "1", "g": ["word", "segment"], "b": {"c": "2"},
    }  # fmt: skip
    assert read(("g[]", "word")) == {"g": "word"}


@pytest.mark.parametrize("parts", [[("a", "1"), ("a", "2")], [("g[]", "x")] * 33, [("", "1")], [("b[c]", "1")] * 2])
def test_a_name_twice_and_too_many_parts_are_told(parts):
    with pytest.raises(Wrong):
        read(*parts)
