"""Tunes over the API: files of each kind, several with what is told of them, and bad input told what it is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from genwright.core import find_card
from genwright.media.abc import read_tune
from genwright.media.score import bars_of
from genwright.media.sound import open_sound
from genwright.media.sound_label import read_label
from genwright.server.app import create_app
from genwright.server.desk import Desk
from genwright.server.fleet import Fleet
from genwright.server.meters import Meters
from tests.nn.tunes import KESH, model

from .household import at_home, own_home, small_house

ASKED: dict[str, Any] = {"model": "piper", "prompt": "a jig in D major", "seed": 3, "bars": 8}


@pytest.fixture(scope="module")
def piper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    place: Path = tmp_path_factory.mktemp("piper")
    model(1).save(place / "tunes")
    house = small_house(
        place, meters=Meters(), models=[{"name": "piper", "source": str(place / "tunes")}], memory=10**10
    )
    house.fleet = Fleet(house.options, house.store)
    house.desk = Desk(house.options, house.fleet, house.keys, house.limits, house.meters)
    key = house.keys.create("ann", roles=("user",))[1]
    head = {"Authorization": f"Bearer {key}"}
    with (
        own_home(place),
        at_home(create_app(house)) as address,
        httpx.Client(base_url=address, headers=head, timeout=60) as made,
    ):
        yield made


def ask(piper: httpx.Client, **more: Any) -> httpx.Response:
    return piper.post("/audio/music", json={**ASKED, **more})


def test_a_tune_comes_as_the_file_that_is_wanted(piper: httpx.Client) -> None:
    found = ask(piper, response_format="abc")
    assert (found.status_code, found.headers["content-type"]) == (200, "text/vnd.abc; charset=utf-8")
    tune = read_tune(found.text)
    assert (str(tune.key), bars_of(tune).wrong) == ("D major", 0)
    assert found.headers["x-seed"] == "3"
    assert '"Label":"1"' in found.headers["x-aigc"]
    assert ask(piper, response_format="abc").text == found.text, "the same seed, the same tune"
    assert ask(piper, response_format="mid").content.startswith(b"MThd")
    assert "score-partwise" in ask(piper, response_format="musicxml").text
    pytest.importorskip("verovio")
    drawn = ask(piper, response_format="svg")
    assert (drawn.status_code, drawn.headers["content-type"].split(";")[0]) == (200, "image/svg+xml")
    assert '"Label":"1"' in drawn.headers["x-aigc"]


def test_several_come_with_what_is_told_of_them(piper: httpx.Client) -> None:
    tunes = ask(piper, response_format="json", n=2).json()["data"]
    assert [tune["seed"] for tune in tunes] == [3, 4]
    assert tunes[0]["told"]["rhythm"] == "jig"
    assert base64.b64decode(tunes[0]["midi"]).startswith(b"MThd")
    assert tunes[0]["abc"] != tunes[1]["abc"]
    varied = ask(piper, prompt="", response_format="json", melody=KESH, use="vary", keep=1.0).json()["data"][0]
    assert read_tune(varied["abc"]).events == read_tune(KESH).events


@pytest.mark.skipif(not find_card("soundfont-gm").is_here, reason="needs `genwright models pull soundfont-gm`")
def test_sound_is_labelled_inside(piper: httpx.Client, tmp_path: Path) -> None:
    for kind in ("mp3", "wav"):
        found = ask(piper, response_format=kind, tempo=300)
        assert found.status_code == 200, found.text
        path = tmp_path / f"a.{kind}"
        path.write_bytes(found.content)
        assert open_sound(path).seconds > 1
        assert '"Label":"1"' in read_label(path)


@pytest.mark.weights
@pytest.mark.skipif(not find_card("hibari").is_here, reason="needs `genwright models pull hibari`")
def test_a_lyric_is_spoken_over_a_tune(piper: httpx.Client) -> None:
    pytest.importorskip("hibari")
    asked = {"lyrics": "A boat goes out.\nA boat comes in.", "response_format": "json"}
    found = ask(piper, **asked)
    assert found.status_code == 200, found.text
    tune = found.json()["data"][0]
    assert ([line["text"] for line in tune["lines"]], tune["speaker"]) == (asked["lyrics"].split("\n"), "hibari")
    assert "w: " in tune["abc"]
    assert "<lyric" in tune["musicxml"]
    quick = ask(piper, **asked, speed=1.5).json()["data"][0]["lines"]
    assert quick[0]["end"] < tune["lines"][0]["end"]


@pytest.mark.parametrize(("more", "param", "status"), [
    ({"n": 2}, "n", 400), ({"response_format": "aac"}, "response_format", 400), ({"model": "nobody"}, "model", 404),
    ({"key": "H"}, None, 400), ({"melody": "no tune"}, None, 400), ({"bars": 1}, "bars", 400),
    ({"lyrics": ""}, "lyrics", 400), ({"lyrics": "a" * 4_001}, "lyrics", 400), ({"lyrics": "--"}, None, 400),
    ({"lyrics": "la", "speaker": "elvis"}, "speaker", 400), ({"lyrics": "la", "voice": "../x"}, None, 400),
    ({"prompt": "", "bars": None}, None, 400), ({"rhythm": "tango"}, None, 400),
])  # fmt: skip
def test_what_makes_no_sense_is_told(piper: httpx.Client, more: dict[str, Any], param: str | None, status: int) -> None:
    found = ask(piper, **more)
    assert found.status_code == status, found.text
    assert param is None or found.json()["error"]["param"] == param
