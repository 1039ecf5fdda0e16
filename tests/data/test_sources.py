"""Every source streams rows with their places; malformed ones are named and never stop the rest (R19)."""

import gzip
import json
import random
import struct
import sys
import zipfile

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from genwright.core import Bad, DataError, MissingExtra, Row, choose
from genwright.core.plugin import PluginProblems


def read(source, path=None, **options):
    given = {"source": source, **options} | ({"path": str(path)} if path else {})
    return list(choose("sources", given, key="source")())


def good(rows):
    return [row.fields for row in rows if isinstance(row, Row)]


def bad(rows):
    return [row for row in rows if isinstance(row, Bad)]


def written(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# -- jsonl -----------------------------------------------------------------------------------------------------------

ROWS = [{"prompt": f"question {i}", "completion": f"Antwort {i} ü 好"} for i in range(5)]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.mark.parametrize(("name", "data", "options"), [
    ("a.jsonl", LINES, {}),
    ("a.ndjson", LINES + "\n\n", {}),
    ("a.json", LINES, {}),
    ("a.jsonl", "\ufeff" + LINES, {}),
    ("a.jsonl", LINES.replace("\n", "\r\n"), {}),
    ("a.json", json.dumps(ROWS), {}),
    ("a.json", "\ufeff" + json.dumps(ROWS, indent=2), {}),
    ("a.jsonl", json.dumps(ROWS), {}),
    ("a.json", json.dumps({"version": 1, "data": ROWS}), {}),
    ("a.json", json.dumps({"version": 1, "data": ROWS}, indent=1), {}),
    ("a.json", json.dumps({"data": ROWS, "other": [1]}), {"key": "data"}),
    ("a.jsonl.gz", gzip.compress(LINES.encode()), {}),
    ("a.json.gz", gzip.compress(json.dumps(ROWS).encode()), {}),
])  # fmt: skip
def test_json_in_every_wrapping_gives_the_same_rows(tmp_path, name, data, options):
    rows = read("jsonl", written(tmp_path / name, data), **options)
    assert good(rows) == ROWS
    assert not bad(rows)


def test_a_row_knows_its_line(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n')
    assert [row.where for row in read("jsonl", path)] == ["a.jsonl:1", "a.jsonl:3"]
    path = written(tmp_path / "b.json", json.dumps(ROWS[:3], indent=1))
    assert [row.where for row in read("jsonl", path)] == ["b.json:2", "b.json:6", "b.json:10"]


MALFORMED = {
    "bad json": (b'{"text": "a"', "is not JSON"),
    "two objects": (b'{"text": "a"}{"text": "b"}', "is not JSON"),
    "NUL bytes": (b'{"text": "a\0b"}', "NUL"),
    "lone surrogate": (b'{"text": "\\ud83d half"}', "is not JSON"),
    "10 MB line": (b'{"text": "' + b"x" * 10_000_000 + b'"}', "longer than 8 MB"),
    "wrong type": (b"[1, 2]", "is a list"),
    "a number": (b"42", "is a int"),
    "not utf-8": (b'{"text": "\xff\xfe"}', "is not JSON"),
    "binary junk": (bytes(range(1, 10)) + bytes(range(128, 256)), "is not JSON"),
    "deep nesting": (b'{"text": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "is not JSON"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_line_is_rejected_with_its_place_and_the_rest_is_read(tmp_path, case):
    line, reason = MALFORMED[case]
    path = written(tmp_path / "a.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    rows = read("jsonl", path)
    assert good(rows) == [{"text": "before"}, {"text": "after"}]
    [lost] = bad(rows)
    assert lost.where == "a.jsonl:2"
    assert reason in lost.reason
    assert len(lost.raw) <= 300
    json.dumps(lost.raw).encode()


@pytest.mark.parametrize("element", ['{"text": "a" "b"}', '{"text": ' + "[" * 5000 + "]" * 5000 + "}", "7", '"x"'])
def test_a_malformed_element_of_an_array_costs_only_itself(tmp_path, element):
    path = written(tmp_path / "a.json", '[{"text": "before"},\n' + element + ',\n{"text": "after"}]')
    rows = read("jsonl", path)
    assert good(rows) == [{"text": "before"}, {"text": "after"}]
    assert [row.where for row in bad(rows)] == ["a.json:2"]


def test_an_array_larger_than_the_window_is_streamed_whole(tmp_path):
    rows = [{"text": f"{i} " + "ü" * 5000} for i in range(1000)]
    assert good(read("jsonl", written(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False)))) == rows


def test_a_gz_that_breaks_off_gives_what_came_before(tmp_path):
    chance = random.Random(1)
    lines = "\n".join(json.dumps({"text": str(chance.random())}) for _ in range(40_000)).encode()
    whole = gzip.compress(lines)
    rows = read("jsonl", written(tmp_path / "a.jsonl.gz", whole[: len(whole) // 2]))
    assert len(good(rows)) > 1000
    assert "broken" in bad(rows)[-1].reason


def test_a_gz_inside_an_archive_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("in/a.jsonl.gz", gzip.compress(LINES.encode()))
    assert good(read("jsonl", tmp_path / "x.zip")) == ROWS


def test_an_unknown_key_names_the_lists_there_are(tmp_path):
    path = written(tmp_path / "a.json", json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(DataError) as caught:
        read("jsonl", path, key="trian")
    assert "test, train" in caught.value.hint


def test_json_of_a_folder_takes_what_include_says(tmp_path):
    written(tmp_path / "in/a.jsonl", LINES)
    written(tmp_path / "in/b.json", LINES)
    written(tmp_path / "in/c.txt", "no json")
    assert len(read("jsonl", tmp_path / "in")) == 10
    assert len(read("jsonl", tmp_path / "in", include=["b*"])) == 5


# -- table -----------------------------------------------------------------------------------------------------------

CSV = 'prompt,completion\n007,"yes, and\nmore"\nwhy?,好\n'
TABLE = [{"prompt": "007", "completion": "yes, and\nmore"}, {"prompt": "why?", "completion": "好"}]


@pytest.mark.parametrize(("name", "data", "options"), [
    ("a.csv", CSV, {}),
    ("a.csv", "\ufeff" + CSV, {}),
    ("a.csv", CSV.replace("\n", "\r\n").replace("and\r\n", "and\n"), {}),
    ("a.csv.gz", gzip.compress(CSV.encode()), {}),
    ("a.csv", CSV.encode("gb18030"), {"encoding": "gb18030"}),
    ("a.csv", CSV.encode("utf-16"), {"encoding": "utf-16"}),
    ("a.tsv", CSV.replace(",", "\t").replace("yes\t", "yes,"), {}),
    ("a.csv", CSV.replace(",", ";").replace("yes;", "yes,"), {"delimiter": ";"}),
    ("a.csv", CSV.split("\n", 1)[1], {"header": ["prompt", "completion"]}),
])  # fmt: skip
def test_tables_keep_their_cells_as_they_stand(tmp_path, name, data, options):
    rows = read("table", written(tmp_path / name, data), **options)
    assert good(rows) == TABLE
    assert not bad(rows)


def test_a_table_row_knows_its_line_and_a_malformed_one_costs_only_itself(tmp_path):
    data = b"a,b\n1,2\n3\n4,\xff\n5,6,7\n" + b"x" * 9_000_000 + b",y\n8,9\n"
    rows = read("table", written(tmp_path / "a.csv", data))
    assert good(rows) == [{"a": "1", "b": "2"}, {"a": "8", "b": "9"}]
    assert [row.where for row in bad(rows)] == ["a.csv:3", "a.csv:4", "a.csv:5", "a.csv:6"]
    assert [row.where for row in rows if isinstance(row, Row)] == ["a.csv:2", "a.csv:7"]


def test_a_header_that_names_a_column_twice_is_an_error(tmp_path):
    with pytest.raises(DataError, match="'a' twice"):
        read("table", written(tmp_path / "a.csv", "a,a\n1,2\n"))


def arrow_files(folder, table):
    parquet.write_table(table, folder / "a.parquet")
    feather.write_feather(table, folder / "a.feather")
    for name, writer in (("stream.arrow", ipc.new_stream), ("file.arrow", ipc.new_file)):
        with writer(folder / name, table.schema) as out:
            out.write_table(table, max_chunksize=2)


def test_columnar_files_give_the_same_rows(tmp_path):
    arrow_files(tmp_path, pa.Table.from_pylist(ROWS))
    for name in ("a.parquet", "a.feather", "stream.arrow", "file.arrow"):
        rows = read("table", tmp_path / name)
        assert good(rows) == ROWS
        assert rows[4].where == f"{name}:row 5"
    assert len(read("table", tmp_path, include=["*.parquet", "*.feather"])) == 10


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_a_columnar_file_that_is_none_is_named(tmp_path, name):
    with pytest.raises(DataError, match="is no"):
        read("table", written(tmp_path / name, b"ARROW1 this is not what it says it is" * 3))


def test_an_arrow_stream_that_breaks_off_gives_what_came_before(tmp_path):
    arrow_files(tmp_path, pa.Table.from_pylist([{"text": str(i) * 100} for i in range(100)]))
    raw = (tmp_path / "stream.arrow").read_bytes()
    rows = read("table", written(tmp_path / "cut.arrow", raw[: len(raw) // 2]))
    assert 10 < len(good(rows)) < 100
    assert bad(rows)


# -- text_files ------------------------------------------------------------------------------------------------------

TEXT = "Title\n\nFirst line\nsecond line\n\n\nLast one"


@pytest.mark.parametrize(("split", "texts", "wheres"), [
    ("file", [TEXT], ["a.txt:1"]),
    ("paragraph", ["Title", "First line\nsecond line", "Last one"], ["a.txt:1", "a.txt:3", "a.txt:7"]),
    ("line", ["Title", "First line", "second line", "Last one"], ["a.txt:1", "a.txt:3", "a.txt:4", "a.txt:7"]),
])  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_is_split_as_asked(tmp_path, split, texts, wheres, newline):
    path = written(tmp_path / "a.txt", "\ufeff" + TEXT.replace("\n", newline))
    rows = read("text_files", path, split=split)
    assert [row["text"] for row in good(rows)] == texts
    assert [row.where for row in rows] == wheres


def test_chunks_end_at_words_and_lose_nothing(tmp_path):
    words = " ".join(f"word{i}" for i in range(20_000))
    rows = good(read("text_files", written(tmp_path / "a.txt", words), split="chunk", size=100))
    assert " ".join(row["text"] for row in rows) == words
    assert all(50 < len(row["text"]) <= 100 for row in rows[:-1])


def test_text_in_another_encoding_and_of_other_names(tmp_path):
    path = written(tmp_path / "in/a.log", "海很深\n\n是的".encode("gb18030"))
    assert good(read("text_files", path, encoding="gb18030")) == [{"text": "海很深"}, {"text": "是的"}]
    assert good(read("text_files", tmp_path / "in", include=["*.log"], encoding="gb18030", split="line"))
    path = written(tmp_path / "b.txt", "海\n深".encode("utf-16"))
    assert good(read("text_files", path, encoding="utf-16", split="line")) == [{"text": "海"}, {"text": "深"}]
    with pytest.raises(PluginProblems, match="no encoding 'utf-9'"):
        read("text_files", path, encoding="utf-9")


@pytest.mark.parametrize("split", ["file", "paragraph", "line", "chunk"])
def test_text_that_is_no_text_is_rejected(tmp_path, split):
    rows = read("text_files", written(tmp_path / "a.txt", b"good\n\n\xff\xfe\x80bad\n"), split=split)
    assert bad(rows)
    assert all("is not utf-8" in row.reason for row in bad(rows))
    if split in ("paragraph", "line"):
        assert good(rows) == [{"text": "good"}]


# -- conversations ---------------------------------------------------------------------------------------------------

TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
ALPACA = {"instruction": "Add", "input": "1 1", "output": "2"}


@pytest.fixture
def llama_factory(tmp_path):
    """A data folder as LLaMA-Factory's users have it."""
    odd = {"talk": [{"who": "man", "said": "Hi"}, {"who": "bot", "said": "Hello"}], "sys": "Be kind."}
    files = {
        "share": {"conversations": TURNS, "system": "Be kind."}, "odd": odd, "alpaca": ALPACA,
        "dpo": {"conversations": TURNS[:1], "chosen": TURNS[1], "rejected": {"from": "gpt", "value": "Go"}},
        "dpo2": {"instruction": "Add", "input": "1 1", "chosen": "2", "rejected": "3"},
        "openai": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        "renamed": {"q": "Add", "a": "2"},
    }  # fmt: skip
    for name, row in files.items():
        written(tmp_path / f"{name}.json", json.dumps([row]))
    info = {
        "share": {"file_name": "share.json", "formatting": "sharegpt",
                  "columns": {"messages": "conversations", "system": "system"}},
        "odd": {"file_name": "odd.json", "formatting": "sharegpt", "columns": {"messages": "talk", "system": "sys"},
                "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "man", "assistant_tag": "bot"}},
        "alpaca": {"file_name": "alpaca.json"},
        "dpo": {"file_name": "dpo.json", "formatting": "sharegpt", "ranking": True,
                "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}},
        "dpo2": {"file_name": "dpo2.json", "ranking": True,
                 "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}},
        "openai": {"file_name": "openai.json", "formatting": "openai", "columns": {"messages": "messages"}},
        "renamed": {"file_name": "renamed.json", "columns": {"prompt": "q", "response": "a"}},
        "remote": {"hf_hub_url": "org/name"}, "escape": {"file_name": "../../x.json"},
    }  # fmt: skip
    written(tmp_path / "dataset_info.json", json.dumps(info))
    return tmp_path


def conversation(rows):
    from genwright.core.rows import read_row

    messages, meta = read_row(good(rows)[0])
    return [(m.role, m.text) for m in messages], meta


HELLO = [("user", "Hi"), ("assistant", "Hello")]


@pytest.mark.parametrize(("entry", "expected", "rejected"), [
    ("share", [("system", "Be kind."), *HELLO], None),
    ("odd", [("system", "Be kind."), *HELLO], None),
    ("alpaca", [("user", "Add\n1 1"), ("assistant", "2")], None),
    ("dpo", HELLO, "Go"),
    ("dpo2", [("user", "Add\n1 1"), ("assistant", "2")], "3"),
    ("openai", HELLO, None),
    ("renamed", [("user", "Add"), ("assistant", "2")], None),
])  # fmt: skip
def test_entries_of_dataset_info_are_understood(llama_factory, entry, expected, rejected):
    found, meta = conversation(read("conversations", llama_factory, entry=entry))
    assert found == expected
    assert meta.get("rejected") is None if rejected is None else meta["rejected"].text == rejected


@pytest.mark.parametrize(("entry", "said"), [
    ("", "Choose one by `entry`"), ("shar", "Did you mean 'share'"), ("remote", "source: hub"), ("escape", "outside"),
])  # fmt: skip
def test_an_entry_that_cannot_be_read_says_what_to_do(llama_factory, entry, said):
    with pytest.raises(DataError) as caught:
        read("conversations", llama_factory, entry=entry)
    assert said in caught.value.message + caught.value.hint


def test_conversations_without_dataset_info(tmp_path):
    path = written(tmp_path / "a.jsonl", json.dumps({"conversations": TURNS}))
    assert conversation(read("conversations", path))[0] == HELLO
    assert conversation(read("conversations", tmp_path))[0] == HELLO
    odd = written(
        tmp_path / "b/odd.jsonl", json.dumps({"talk": [{"who": "man", "said": "Hi"}, {"who": "gpt", "said": "Hello"}]})
    )
    tags = {"role_tag": "who", "content_tag": "said", "user_tag": "man"}
    rows = read("conversations", odd, columns={"messages": "talk"}, tags=tags, formatting="sharegpt")
    assert conversation(rows)[0] == HELLO
    assert bad(read("conversations", odd, formatting="sharegpt"))


# -- saved_dataset ---------------------------------------------------------------------------------------------------


def save_dataset(folder, rows, labels=None):
    """What `datasets.Dataset.save_to_disk` writes: arrow streams, state.json, dataset_info.json."""
    folder.mkdir(parents=True)
    half = len(rows) // 2
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for name, part in zip(names, (rows[:half], rows[half:]), strict=True):
        table = pa.Table.from_pylist(part)
        with ipc.new_stream(folder / name, table.schema) as out:
            out.write_table(table)
    features = {key: {"dtype": "string", "_type": "Value"} for key in rows[0]}
    if labels:
        features["label"] = {"names": labels, "_type": "ClassLabel"}
    written(folder / "state.json", json.dumps({"_data_files": [{"filename": n} for n in names], "_split": "train"}))
    written(folder / "dataset_info.json", json.dumps({"features": features}))


def test_a_saved_dataset_is_read_without_its_library(tmp_path):
    save_dataset(tmp_path / "d", ROWS)
    rows = read("saved_dataset", tmp_path / "d")
    assert good(rows) == ROWS
    assert rows[0].where == "data-00000-of-00002.arrow:row 1"


def test_a_saved_dict_gives_the_split_and_labels_their_words(tmp_path):
    for split in ("train", "test"):
        save_dataset(tmp_path / split, [{"text": split, "label": i % 2} for i in range(4)], ["no", "yes"])
    written(tmp_path / "dataset_dict.json", json.dumps({"splits": ["train", "test"]}))
    assert good(read("saved_dataset", tmp_path, split="test"))[1] == {"text": "test", "label": "yes"}
    assert good(read("saved_dataset", tmp_path))[0] == {"text": "train", "label": "no"}
    with pytest.raises(DataError) as caught:
        read("saved_dataset", tmp_path, split="tset")
    assert "Did you mean 'test'" in caught.value.hint


def test_other_folders_are_no_saved_dataset(tmp_path):
    with pytest.raises(DataError, match=r"no state\.json"):
        read("saved_dataset", tmp_path)
    written(tmp_path / "state.json", "{")
    with pytest.raises(DataError, match="broken"):
        read("saved_dataset", tmp_path)


# -- pattern ---------------------------------------------------------------------------------------------------------

FORTUNES = "Q: How deep?\nA: Eleven\n  kilometres.\n%\nQ: How wide?\nA: Very.\n%\n"
PATTERN = r"^Q: (?P<prompt>.*)\nA: (?P<completion>(?:.|\n)*?)\n%"


def test_a_pattern_cuts_rows_out_of_text(tmp_path):
    rows = read("pattern", written(tmp_path / "a.txt", FORTUNES), pattern=PATTERN, replace=[[r"\n\s+", " "]])
    assert good(rows) == [
        {"prompt": "How deep?", "completion": "Eleven kilometres."},
        {"prompt": "How wide?", "completion": "Very."},
    ]
    assert [row.where for row in rows] == ["a.txt:1", "a.txt:5"]


def test_a_pattern_reads_members_of_a_package(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("pkg/data/one.txt", FORTUNES)
        archive.writestr("pkg/code.py", "Q: no\nA: no\n%\n")
    rows = read("pattern", tmp_path / "x.whl", include=["pkg/data/*"], pattern=PATTERN)
    assert [row.where for row in rows] == ["pkg/data/one.txt:1", "pkg/data/one.txt:5"]


def test_flags_and_encoding_of_a_pattern_count(tmp_path):
    path = written(tmp_path / "a.txt", "frage: Wie tief?\nENDE".encode("latin-1"))
    given = {"pattern": "FRAGE: (?P<text>.*)ENDE", "encoding": "latin-1"}
    assert not read("pattern", path, **given)
    assert good(read("pattern", path, flags=["ignorecase", "dotall"], **given)) == [{"text": "Wie tief?\n"}]
    assert bad(read("pattern", written(tmp_path / "b.txt", b"\xff"), pattern="(?P<text>.)"))


@pytest.mark.parametrize(("pattern", "said"), [("(", "no regular expression"), ("abc", "needs named groups")])
def test_a_pattern_that_cannot_work_is_a_recipe_problem(pattern, said):
    with pytest.raises(PluginProblems, match=said):
        choose("sources", {"source": "pattern", "path": "x", "pattern": pattern}, key="source")


# -- yaml_pairs ------------------------------------------------------------------------------------------------------

YAML = """
categories: [sea]
conversations:
- - How deep?
  - Eleven kilometres.
  - Very.
- - Salty?
  - Yes
- - nothing to say
- just words
"""


def test_yaml_lists_are_questions_and_answers(tmp_path):
    rows = read("yaml_pairs", written(tmp_path / "a.yml", YAML))
    assert good(rows) == [
        {"prompt": "How deep?", "completion": "Eleven kilometres."}, {"prompt": "How deep?", "completion": "Very."},
        {"prompt": "Salty?", "completion": "Yes"},
    ]  # fmt: skip
    assert [row.where for row in rows] == ["a.yml:4", "a.yml:4", "a.yml:7", "a.yml:9", "a.yml:10"]
    turns = good(read("yaml_pairs", tmp_path, more="turns"))
    assert [m["content"] for m in turns[0]["messages"]] == ["How deep?", "Eleven kilometres."]


def test_yaml_options_and_malformed_files(tmp_path):
    written(tmp_path / "a.yml", YAML.replace("conversations", "talks"))
    written(tmp_path / "b.yml", "conversations: [")
    written(tmp_path / "c.yml", "- " * 3000)
    written(tmp_path / "d.txt", YAML)
    rows = read("yaml_pairs", tmp_path, key="talks")
    assert len(good(rows)) == 3
    assert {row.where.split(":")[0] for row in bad(rows)} == {"a.yml", "b.yml", "c.yml"}
    assert len(good(read("yaml_pairs", tmp_path, include=["*.txt"]))) == 3


# -- gettext ---------------------------------------------------------------------------------------------------------

PO = r"""
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\n"

#: menu.c:3
msgid "&Open"
msgstr "Ö&ffnen"

#, fuzzy
msgid "Close"
msgstr "Schließen?"

msgctxt "verb"
msgid "Print \"it\""
msgstr ""
"\"Es\" "
"drucken"

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"

msgid "Untranslated"
msgstr ""

#~ msgid "Old"
#~ msgstr "Alt"
"""


def mo(entries):
    """A .mo catalogue as msgfmt writes it."""
    ids = b"".join(k.encode() + b"\0" for k in entries)
    out, tables, at_id, at_str = b"", [[], []], 28 + 16 * len(entries), 28 + 16 * len(entries) + len(ids)
    for key, value in entries.items():
        tables[0] += [len(key.encode()), at_id]
        tables[1] += [len(value.encode()), at_str]
        at_id += len(key.encode()) + 1
        at_str += len(value.encode()) + 1
        out += value.encode() + b"\0"
    count = len(entries)
    head = struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    return head + struct.pack(f"<{4 * count}I", *tables[0], *tables[1]) + ids + out


MO = mo(
    {
        "": "charset=UTF-8",
        "%d file\0%d files": "%d fichier\0%d fichiers",
        "&Open": "&Ouvrir",
        'verb\x04Print "it"': "L'imprimer",
    }
)
PAIRS = [("&Open", "Ö&ffnen"), ('Print "it"', '"Es" drucken'), ("%d file", "%d Datei"), ("%d files", "%d Dateien")]


def pairs(rows):
    return [(row["source"], row["target"]) for row in good(rows)]


@pytest.fixture
def locale(tmp_path):
    written(tmp_path / "locale/de/LC_MESSAGES/app.po", PO)
    written(tmp_path / "locale/fr/LC_MESSAGES/app.mo", MO)
    return tmp_path / "locale"


def test_a_po_catalogue_gives_its_finished_pairs(locale):
    rows = read("gettext", locale / "de/LC_MESSAGES/app.po")
    assert pairs(rows) == PAIRS
    assert rows[0].where == "app.po:6"
    assert rows[1].fields["meta"]["context"] == "verb"


@pytest.mark.parametrize(("options", "expected"), [
    ({"fuzzy": True}, [PAIRS[0], ("Close", "Schließen?"), *PAIRS[1:]]),
    ({"plurals": False}, PAIRS[:3]),
    ({"context": False}, [PAIRS[0], *PAIRS[2:]]),
    ({"strip": "&"}, [("Open", "Öffnen"), *PAIRS[1:]]),
    ({"source_language": "fr"}, [("&Ouvrir", "Ö&ffnen"), ("L'imprimer", '"Es" drucken'), ("%d fichier", "%d Datei"),
                                 ("%d fichiers", "%d Dateien")]),
    ({"include": ["app.po"]}, PAIRS),
])  # fmt: skip
def test_options_of_catalogues_count(locale, options, expected):
    rows = read("gettext", locale, target_language="de", **options)
    assert pairs(rows) == expected
    assert {row["meta"]["language"] for row in good(rows)} == {"de"}


def test_a_mo_catalogue_in_a_package(locale, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.write(locale / "fr/LC_MESSAGES/app.mo", "pkg/locale/fr/LC_MESSAGES/app.mo")
    rows = read("gettext", tmp_path / "x.whl", target_language="fr")
    assert pairs(rows) == [
        ("%d file", "%d fichier"),
        ("%d files", "%d fichiers"),
        ("&Open", "&Ouvrir"),
        ('Print "it"', "L'imprimer"),
    ]
    assert rows[-1].fields["meta"]["context"] == "verb"


def test_a_language_without_a_catalogue_is_an_error(locale):
    with pytest.raises(DataError, match="'it'"):
        read("gettext", locale, target_language="it")
    with pytest.raises(DataError, match="'it'"):
        read("gettext", locale, source_language="it")


def test_a_malformed_catalogue_costs_only_its_entry(tmp_path):
    po = 'msgid "a"\nmsgstr "A"\n\nmsgid "b\nmsgstr "B"\n\nmsgid "c"\nmsgstr "C"\n'
    rows = read("gettext", written(tmp_path / "de.po", po))
    assert pairs(rows) == [("a", "A"), ("c", "C")]
    assert [row.where for row in bad(rows)] == ["de.po:4"]
    latin = PO.replace("UTF-8", "ISO-8859-1").encode("latin-1")
    assert pairs(read("gettext", written(tmp_path / "l/de.po", latin))) == PAIRS
    assert bad(read("gettext", written(tmp_path / "x.mo", b"junk" * 10)))
    cut = read("gettext", written(tmp_path / "y.mo", MO[:60]))
    assert bad(cut)


# -- hub and card ----------------------------------------------------------------------------------------------------


def test_the_hub_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match="huggingface_hub"):
        read("hub", dataset="org/name")


def test_a_card_reads_what_it_fetches(tmp_path):
    from genwright.core.plugin import shelves

    card = written(tmp_path / "verses.yaml", json.dumps({
        "kind": "dataset", "title": "Verses", "licence": "MIT",
        "files": [{"name": "a.jsonl", "sha256": "0" * 64, "size": 1, "sources": ["file:/x"]}],
        "read": {"source": "text_files", "split": "line"},
    }))  # fmt: skip
    written(tmp_path / "store/a.jsonl", "one\n\ntwo")
    module = shelves["sources"].load("card")

    def rows(**options):
        settings = module.Settings(card=str(card), options=options)
        return good(list(module.read(settings, fetch=lambda card: tmp_path / "store")))

    assert rows() == [{"text": "one"}, {"text": "two"}]
    assert rows(split="file") == [{"text": "one\n\ntwo"}]
