"""Cards are checked when they are read, and every card that ships is right."""

import pytest

from genwright.core import ModelError, UsageError, cards, find_card
from genwright.core.card import CardFile

SHA = "0" * 64


@pytest.mark.parametrize("name", sorted(cards()))
def test_every_card_is_right(name):
    card = find_card(name)
    assert card.name == name
    assert card.title
    assert card.facts
    assert card.licence
    assert card.homepage
    assert card.licence in ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0") or card.must_accept or card.notice
    if card.kind == "dataset":
        assert card.read.get("source")
    else:
        assert card.abilities or card.engine == "" or card.format == "files"


@pytest.mark.parametrize(
    "source",
    [
        "ftp://x/y",
        "pypi:name",
        "pypi:name>=1",
        "npm:name",
        "npm:@scope/name",
        "hf:org/name#file",
        "http://x/y",
        "/etc/passwd",
    ],
)
def test_a_source_names_its_version_and_a_known_way(source):
    with pytest.raises(ValueError):
        CardFile(name="x", sha256=SHA, size=1, sources=[source])


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x", ""])
def test_a_name_that_leads_out_of_the_store_is_refused(name):
    with pytest.raises(ValueError):
        CardFile(name=name, sha256=SHA, size=1, sources=["pypi:a==1"])


def test_a_file_comes_whole_or_in_parts():
    whole = CardFile(name="x", sha256=SHA, size=1, sources=["pypi:a==1", "npm:@s/a@1"])
    assert whole.pieces == (("pypi:a==1", "npm:@s/a@1"),)
    parts = CardFile(name="x", sha256=SHA, size=1, parts=[["pypi:a==1"], ["pypi:b==1"]])
    assert parts.pieces == (("pypi:a==1",), ("pypi:b==1",))
    for wrong in ({}, {"sources": ["pypi:a==1"], "parts": [["pypi:b==1"]]}, {"parts": [[]]}):
        with pytest.raises(ValueError):
            CardFile(name="x", sha256=SHA, size=1, **wrong)


def test_an_unknown_card_is_met_with_the_nearest_name():
    with pytest.raises(UsageError, match="Did you mean 'smollm2-135m-instruct'"):
        find_card("smollm2-135-instruct")


@pytest.mark.parametrize("text", ["a: [", "just words", "kind: model\ntitel: x\n"])
def test_a_broken_card_says_what_is_wrong(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        find_card(str(path))


def test_a_card_knows_whether_its_files_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path))
    card = find_card("aws-cli-examples")
    assert not card.is_here
    with pytest.raises(ModelError) as caught:
        _ = card.path
    assert "genwright models pull aws-cli-examples" in caught.value.hint


@pytest.mark.parametrize("name", [name for name in sorted(cards()) if find_card(name).kind == "dataset"])
def test_a_dataset_is_read_by_a_source_with_right_options(name):
    from genwright.core import choose

    read = find_card(name).read
    choose("sources", {**read, "path": read.get("path", "x.whl")}, key="source")


def test_the_examples_of_the_command_line_are_cut_out_cleanly(tmp_path):
    """The pattern of the card on the shapes that its pages have."""
    from genwright.core import choose

    page = tmp_path / "cp.rst"
    page.write_text(
        "**Example 1: To copy a file**\n\nThe following ``cp`` example copies `a file <https://x>`__. ::\n\n"
        "    aws s3 cp a.txt \\\n        s3://bucket/a.txt\n\nOutput::\n\n    upload: a.txt\n\n"
        "**To move it**\n\nThis command moves it.\n\nCommand::\n\n  aws s3 mv a b --query 'X[?A==`b`]'\n\n"
        "**To be dropped, for it has no command**\n\nWords. ::\n\n    {\n      \"json\": 1\n    }\n\n"
        "**To list**\n\n    aws s3 ls\n\n**To remove**::\n\n    aws s3 rm x\n"
    )  # fmt: skip
    read = dict(find_card("aws-cli-examples").read) | {"path": str(tmp_path), "include": ["*.rst"]}
    rows = [row.fields for row in choose("sources", read, key="source")()]
    assert rows == [
        {"prompt": "To copy a file. The following cp example copies a file.", "group": "aws s3 cp", "service": "s3",
         "completion": "aws s3 cp a.txt s3://bucket/a.txt"},
        {"prompt": "To move it. This command moves it.", "group": "aws s3 mv", "service": "s3",
         "completion": "aws s3 mv a b --query 'X[?A==`b`]'"},
    ]  # fmt: skip
