"""Sources of pictures: folders and archives with their captions, sets of icons, several sources as one."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from genwright.core import Bad, DataError, Row, choose, find_card
from genwright.core.home import store
from genwright.core.plugin import PluginProblems
from genwright.core.rows import read_row
from genwright.media.picture import open_picture


def read(source, path=None, **options):
    given = {"source": source, **options} | ({"path": str(path)} if path else {})
    return list(choose("sources", given, key="source")())


def good(rows):
    return {row.where: row.fields for row in rows if isinstance(row, Row)}


def bad(rows):
    return {row.where: row.reason for row in rows if isinstance(row, Bad)}


def png(seed=0):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def filled(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def words(fields):
    messages, _ = read_row(fields, gives="image")
    return messages[0].text if len(messages) > 1 else None


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("files", "captions"), [
    ({"a.png": png(), "b.JPG": png(1), "a.txt": "a cat", "b.caption": "a dog"}, ["a cat", "a dog"]),
    ({"red_cars/1.png": png(), "red_cars/2.png": png(1), "cats/1.png": png(2)}, ["cats", "red cars", "red cars"]),
    ({"a.png": png(), "metadata.jsonl": '{"file_name": "a.png", "text": "a cat"}\n'}, ["a cat"]),
    ({"in/a.png": png(), "in/metadata.csv": 'file_name,text\na.png,"a cat, asleep"\n'}, ["a cat, asleep"]),
    ({"a.png": png(), "b.webp": png(1)}, [None, None]),
])  # fmt: skip
def test_captions_are_found_wherever_they_stand(tmp_path, files, captions):
    rows = read("image_folder", filled(tmp_path, files))
    assert not bad(rows)
    assert [words(fields) for fields in good(rows).values()] == captions
    assert all(fields["image"].is_file() for fields in good(rows).values())


def test_where_captions_come_from_can_be_said(tmp_path):
    files = {
        "cats/a.png": png(),
        "cats/a.txt": "asleep",
        "metadata.jsonl": '{"file_name": "cats/a.png", "caption": "m"}',
    }
    filled(tmp_path, files)
    said = {way: words(*good(read("image_folder", tmp_path, captions=way)).values())
            for way in ("auto", "metadata", "text", "folder", "none")}  # fmt: skip
    assert said == {"auto": "m", "metadata": "m", "text": "asleep", "folder": "cats", "none": None}


def test_template_style_and_include_are_minded(tmp_path):
    filled(tmp_path, {"cats/a.png": png(), "cats/b.jpg": png()})
    [fields] = good(
        read("image_folder", tmp_path, template="a photo of {caption}", style="photo", include=["*.jpg"])
    ).values()
    assert words(fields) == "a photo of cats"
    assert (fields["style"], fields["label"], fields["concept"]) == ("photo", "cats", "cats")
    with pytest.raises(PluginProblems, match="template"):
        read("image_folder", tmp_path, template="no words")


def test_what_metadata_says_beside_the_caption_is_kept(tmp_path):
    row = {"file_name": "a.png", "captions": {"en": ["a cat"], "zh": ["猫"]}, "licence": "CC0-1.0", "concept": "cat"}
    filled(tmp_path, {"a.png": png(), "metadata.jsonl": json.dumps(row)})
    _, meta = read_row(*good(read("image_folder", tmp_path)).values(), gives="image")
    assert meta == {"captions": {"en": ["a cat"], "zh": ["猫"]}, "licence": "CC0-1.0", "concept": "cat"}


def test_every_picture_or_row_without_its_other_half_is_named(tmp_path):
    lines = [
        {"file_name": "a.png", "text": "a"},
        {"file_name": "gone.png"},
        {"text": "x"},
        {"file_name": "../b.png"},
        3,
    ]
    filled(tmp_path, {"a.png": png(), "b.png": png(), "metadata.jsonl": "\n".join(map(json.dumps, lines))})
    rows = read("image_folder", tmp_path)
    assert list(good(rows)) == ["a.png"]
    reasons = bad(rows)
    assert "no row of metadata" in reasons["b.png"]
    assert "no such picture" in reasons["gone.png"]
    assert "without `file_name`" in reasons["metadata.jsonl:3"]
    assert "out of the folder" in reasons["metadata.jsonl:4"]
    assert len(reasons) == 5
    filled(
        tmp_path / "texts", {"a.png": png(), "b.png": png(), "a.txt": "a", "c.txt": b"\xff", "metadata.csv": "a,b\n1\n"}
    )
    assert "no text file" in bad(read("image_folder", tmp_path / "texts", captions="text"))["b.png"]


def test_archives_are_read_where_they_lie(tmp_path):
    files = {"z/b.png": png(1), "z/a.png": png(), "z/metadata.jsonl": '{"file_name": "a.png", "text": "a cat"}\n'
             '{"file_name": "b.png", "text": "a dog"}'}  # fmt: skip
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    for name in ("x.zip", "x.tar"):
        rows = good(read("image_folder", tmp_path / name))
        assert rows["z/a.png"]["image"] == png()
        assert words(rows["z/b.png"]) == "a dog"


def test_drawings_become_pictures_of_the_size_that_is_asked_for(tmp_path):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4"><rect width="8" height="4" fill="red"/></svg>'
    filled(tmp_path, {"a.svg": svg, "b.svg": "<html/>"})
    rows = read("image_folder", tmp_path, svg_size=40)
    assert open_picture(good(rows)["a.svg"]["image"]).size == (40, 40)
    assert "no picture" in bad(rows)["b.svg"]


def test_a_folder_without_pictures_is_an_error(tmp_path):
    filled(tmp_path, {"a.txt": "no picture"})
    with pytest.raises(DataError, match="no pictures"):
        read("image_folder", tmp_path)
    with pytest.raises(DataError, match="no file"):
        read("image_folder", tmp_path / "none")


# -- icons -------------------------------------------------------------------------------------------------------------

CAT = '<path fill="currentColor" d="M0 0h16v16H0z"/>'
ICONS = {
    "prefix": "tiny", "width": 16, "height": 16, "aliases": {"kitty": {"parent": "cat-face"}},
    "icons": {"cat-face": {"body": CAT}, "hiddenone": {"body": CAT, "hidden": True}, "flag-for-x": {"body": CAT},
              "wavinghand": {"body": CAT.replace("0h16", "0h8")}, "wave-light": {"body": CAT}, "thing": {"body": "<g>"},
              "unknown": {"body": CAT}},
}  # fmt: skip
INFO = {"name": "Tiny", "author": {"name": "A. Person", "url": "https://example.org"},
        "license": {"title": "MIT", "spdx": "MIT", "url": "https://example.org/mit"}}  # fmt: skip
CHARS = {"1f431": "kitty", "1f44b-1f3fb": "wave-light", "1f3f3-fe0f": "flag-for-x", "1f4a1": "thing"}
ENGLISH = [
    {"hexcode": "1F431", "label": "cat face", "tags": ["pet"], "group": 3},
    {"hexcode": "1F44B", "label": "waving hand", "tags": ["hello"], "group": 1,
     "skins": [{"hexcode": "1F44B-1F3FB", "label": "waving hand: light skin tone"}]},
    {"hexcode": "1F3F3", "label": "white flag", "group": 9}, {"hexcode": "1F4A1", "label": "light bulb", "group": 7},
]  # fmt: skip
CHINESE = [{"hexcode": "1F431", "label": "猫脸", "tags": ["宠物"], "group": 3}]


def packed(path, files):
    with tarfile.open(path, "w:gz") as package:
        for name, content in files.items():
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            package.addfile(entry, io.BytesIO(data))


@pytest.fixture
def emoji(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "set"
    folder.mkdir()
    packed(folder / "tiny.tgz", {"icons.json": ICONS, "info.json": INFO, "chars.json": CHARS})
    filled(folder, {"emojibase.en.json": json.dumps(ENGLISH), "emojibase.zh.json": json.dumps(CHINESE),
                    "emojilib.en.json": json.dumps({"🐱": ["cat_face", "meow", ":3"]})})  # fmt: skip
    return folder


def test_an_emoji_has_captions_in_every_language_and_keeps_its_attribution(emoji):
    rows = read("icons", emoji)
    assert list(good(rows)) == ["tiny:cat-face", "tiny:wavinghand"]
    assert list(bad(rows)) == ["tiny:thing"]
    fields = good(rows)["tiny:cat-face"]
    messages, meta = read_row(fields, gives="image")
    assert messages[0].text == "cat face"
    english = ["cat face", "cat face, pet", "cat face, meow"]
    assert meta["captions"] == {"en": english, "zh": ["猫脸", "猫脸, 宠物"]}
    assert meta["tags"] == ["pet", "meow"]
    assert (meta["style"], meta["concept"], meta["group"]) == ("tiny", "cat face", "emoji 1f431")
    assert meta["licence"] == "MIT"
    assert meta["attribution"] == "Tiny by A. Person, https://example.org, https://example.org/mit"


def test_icons_are_drawn_once_and_lie_in_the_store(emoji, monkeypatch):
    path = good(read("icons", emoji))["tiny:cat-face"]["image"]
    assert path.is_relative_to(store())
    assert open_picture(path).size == (128, 128)
    assert open_picture(path).getpixel((5, 5)) == (0, 0, 0)
    monkeypatch.setattr("genwright.data.sources.icons.rasterise", lambda *_: pytest.fail("drawn again"))
    assert good(read("icons", emoji, without=["flags", "objects"]))["tiny:cat-face"]["image"] == path


def test_options_of_icons_change_what_is_read(emoji):
    assert "tiny:flag-for-x" in good(read("icons", emoji, without=[]))
    toned = good(read("icons", emoji, skin_tones=True))["tiny:wave-light"]
    assert toned["meta"]["concept"] == "waving hand, light skin tone"
    fields = good(read("icons", emoji, size=32, colour="#ff0000", style="mine"))["mine:cat-face"]
    assert open_picture(fields["image"]).size == (32, 32)
    assert open_picture(fields["image"]).getpixel((9, 9)) == (255, 0, 0)
    with pytest.raises(PluginProblems, match="without"):
        read("icons", emoji, without=["flagz"])


def test_icons_without_emoji_are_captioned_by_their_names(emoji):
    for name in emoji.glob("emoji*.json"):
        name.unlink()
    rows = good(read("icons", emoji))
    assert words(rows["tiny:cat-face"]) == "cat face"
    assert len(rows) == 5
    assert rows["tiny:wave-light"]["meta"]["group"] == "icon wave light"


def test_icons_of_lines_stay_drawings_and_filled_ones_are_passed_over(tmp_path):
    line = '<path fill="none" stroke="currentColor" d="M4 12h16"/>'
    for name, prefix in (("a.tgz", "one"), ("b.tgz", "two")):
        icons = {"home-02-outline": {"body": line}, "home-filled": {"body": CAT}, "half": {"body": line + CAT},
                 "gone": {"body": line, "hidden": True}}  # fmt: skip
        packed(
            tmp_path / name,
            {"icons.json": {"prefix": prefix, "width": 24, "height": 24, "icons": icons}, "info.json": INFO},
        )
    rows = good(read("icons", tmp_path, lines=True, ends=["-outline"]))
    assert list(rows) == ["one:home-02-outline", "two:home-02-outline"], "every package of the folder"
    fields = rows["two:home-02-outline"]
    assert fields["image"]["bytes"].startswith(b"<svg")
    assert fields["meta"]["captions"] == {"en": ["home"]}
    assert (fields["meta"]["concept"], fields["meta"]["style"], fields["meta"]["licence"]) == ("home", "two", "MIT")
    assert "group" not in fields["meta"], "many hands draw one thing"
    packed(
        tmp_path / "b.tgz",
        {"icons.json": {"prefix": "odd", "icons": {"seven": 7, "torn": {"body": "<g stroke='red'>"}}}},
    )
    assert sorted(bad(read("icons", tmp_path, lines=True))) == ["odd:seven", "odd:torn"]
    assert list(bad(read("icons", tmp_path))) == ["odd:seven", "odd:torn"]
    kept = good(read("icons", tmp_path, lines=True))["one:home-02-outline"]
    assert kept["meta"]["concept"] == "home 02 outline"


def test_what_is_no_set_of_icons_is_named(emoji, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no package"):
        read("icons", tmp_path / "none")
    for text, said in (("{}", "no icons"), ("{", "not JSON"), ('{"icons": []}', "no icons")):
        filled(tmp_path / "bad", {"icons.json": text})
        with pytest.raises(DataError, match=said):
            read("icons", tmp_path / "bad")


# -- several -----------------------------------------------------------------------------------------------------------


def test_several_sources_follow_each_other(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    paths = [str(tmp_path / "a.jsonl"), {"source": "jsonl", "path": str(tmp_path / "b.jsonl")}]
    assert [row.fields["text"] for row in read("several", of=paths)] == ["a", "b"]


def test_several_sources_find_what_lies_beside_the_recipe(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    chosen = choose("sources", {"source": "several", "of": ["a.jsonl"]}, key="source", folder=tmp_path)
    assert [row.fields for row in chosen()] == [{"text": "a"}]


@pytest.mark.parametrize(("of", "said"), [
    ([], "at least 1"), (["no-such-card"], "Did you mean|There are"),
    ([{"source": "jsonl", "pth": "x"}], "unknown key"),
])  # fmt: skip
def test_a_slip_in_one_of_several_is_named(of, said):
    with pytest.raises(PluginProblems, match=said):
        read("several", of=of)


def test_several_cards_are_fetched_and_read(emoji):
    card = emoji.parent / "tiny.yaml"
    card.write_text(json.dumps({
        "kind": "dataset", "title": "Tiny", "licence": "MIT", "files": [{"name": "x", "sha256": "0" * 64, "size": 1,
        "sources": ["file:/x"]}, {"name": "y", "sha256": "0" * 64, "size": 1, "sources": ["file:/y"]}],
        "read": {"source": "icons"}}))  # fmt: skip
    chosen = choose("sources", {"source": "several", "of": [{"source": "card", "card": str(card)}]}, key="source")
    resolved = chosen.module.resolve(chosen.settings, lambda found: emoji)
    assert len(good(resolved())) == 2
    assert find_card("emoji-noto").read == {"source": "icons"}


# -- drawings ----------------------------------------------------------------------------------------------------------


def test_drawings_of_a_folder_are_kept_on_request(tmp_path):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4"><path d="M1 1h5" stroke="red"/></svg>'
    filled(tmp_path, {"a.svg": svg, "a.txt": "a line"})
    (row,) = good(read("image_folder", tmp_path, svg_size=None)).values()
    assert row["image"].read_text() == svg
