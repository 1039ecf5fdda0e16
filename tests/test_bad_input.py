"""Bad input and bad luck, each through the command line: a clear sentence, the right code, nothing lost."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest
import yaml

GENWRIGHT = [sys.executable, "-m", "genwright"]
TINY = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}  # fmt: skip
ROWS = [{"prompt": f"say number {n} in words please", "completion": f"it is {n} of course"} for n in range(60)]
RECIPE = {
    "data": {"path": "rows.jsonl"},
    "task": {"name": "instruct", "max_length": 64, "max_new_tokens": 8},
    "model": {"config": TINY, "tokenizer": {"train": "bpe", "vocab_size": 300}},
    "method": "full",
    "train": {"max_steps": 4, "tokens_per_batch": 256, "threads": 1},
    "metrics": ["exact_match"],
    "evaluate": {"max_rows": 2, "bootstrap": 10},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with good rows and a good recipe, and a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    write_recipe(tmp_path)
    return tmp_path


def write_recipe(place, **changes):
    (place / "r.yaml").write_text(yaml.safe_dump(RECIPE | changes))


def genwright(*words, **more):
    done = subprocess.run([*GENWRIGHT, *map(str, words)], capture_output=True, text=True, timeout=300, **more)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"trian": {}}, 2, "Did you mean 'train'"),
        ({"train": {"max_steps": "many"}}, 2, "train.max_steps"),
        ({"data": {"path": "row.jsonl"}}, 3, "rows.jsonl"),
        ({"model": {"source": "smollm"}}, 2, "Did you mean"),
        ({"method": "lorra"}, 2, "Did you mean 'lora'"),
        ({"model": {}}, 2, "config"),
    ],
    ids=["unknown key", "wrong type", "missing file", "unknown model", "unknown method", "no model"],
)  # fmt: skip
def test_a_wrong_recipe_is_a_sentence(place, changes, code, words):
    write_recipe(place, **changes)
    done = genwright("run", "r.yaml", "--out", "run")
    assert done.returncode == code, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{not json}\n", "JSON"),
        (b'{"prompt": "a\x00b", "completion": "c"}\n', ""),
        (b'{"prompt": "\\ud800", "completion": "c"}\n', ""),
        (b'{"prompt": 5, "completion": "c"}\n', ""),
        (b'{"prompt": "' + b"a" * 10_000_000 + b'"\n', ""),
        (os.urandom(512).replace(b"\n", b" ") + b"\n", ""),
        (b"[" * 100_000 + b"\n", ""),
        (b'{"unknown": "shape"}\n', "shape"),
    ],
    ids=["not json", "NUL", "half character", "wrong type", "10 MB line", "binary junk", "deep nesting", "no shape"],
)  # fmt: skip
def test_a_bad_row_is_set_aside_with_its_place_and_the_rest_is_kept(place, content, reason):
    good = (place / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (place / "rows.jsonl").write_bytes(b"".join([*good[:3], content, *good[3:]]))
    done = genwright("prepare", "r.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    (bad,) = [json.loads(line) for line in (place / "run/data/rejected.jsonl").read_text().splitlines()]
    assert bad["where"].endswith("rows.jsonl:4")
    assert reason in bad["reason"]
    kept = sum(len((place / f"run/data/{part}.jsonl").read_text().splitlines()) for part in ("train", "held_out"))
    assert kept == len(ROWS)


def test_too_many_bad_rows_stop_the_run_and_name_the_file(place):
    (place / "rows.jsonl").write_text("junk\n" * 50 + '{"prompt": "a", "completion": "b"}\n')
    done = genwright("prepare", "r.yaml", "--out", "run")
    assert done.returncode == 3
    assert "max_bad_rate" in done.stderr
    assert "rejected.jsonl" in done.stderr


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"], ids=["empty", "blank lines", "only a BOM"])
def test_empty_data_is_a_sentence(place, content):
    (place / "rows.jsonl").write_bytes(content)
    done = genwright("prepare", "r.yaml", "--out", "run")
    assert done.returncode == 3
    assert "error:" in done.stderr


def model_folder(place):
    """A small real model of ours, as a folder."""
    assert genwright("tune", "r.yaml", "--out", "made", "--set", "train.max_steps=1").returncode == 0
    return place / "made" / "model"


def test_broken_and_unsafe_weights_are_refused(place):
    good = model_folder(place)
    cases = {}
    for name in ("truncated", "flipped", "huge header", "pickle"):
        folder = place / name.replace(" ", "-")
        shutil.copytree(good, folder)
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        if name == "truncated":
            weights.write_bytes(content[: len(content) // 2])
        elif name == "flipped":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif name == "huge header":
            weights.write_bytes(struct.pack("<Q", 2**63) + content[8:])
        else:
            weights.unlink()
            canary = place / "canary"
            attack = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
            (folder / "pytorch_model.bin").write_bytes(attack)
        done = genwright("generate", folder, "hello", "--quiet")
        cases[name] = done
        assert done.returncode == 4, (name, done.stderr)
    assert "pickle" in cases["pickle"].stderr
    assert not (place / "canary").exists()
    assert "sha256" in cases["flipped"].stderr or "changed" in cases["flipped"].stderr


def test_a_card_whose_file_differs_is_refused_and_nothing_is_kept(place):
    (place / "weights.gguf").write_bytes(b"GGUF but other")
    file = {"name": "w.gguf", "sha256": "0" * 64, "size": 14, "sources": [f"file:{place}/weights.gguf"]}
    card = {"kind": "model", "title": "x", "licence": "MIT", "format": "gguf", "files": [file]}
    (place / "mine.yaml").write_text(yaml.safe_dump(card))
    done = genwright("models", "pull", place / "mine.yaml")
    assert done.returncode == 4
    assert "sha256" in done.stderr
    assert not [path for path in (place / "home").rglob("*.gguf") if path.is_file()]


def test_without_a_network_it_says_what_was_tried_and_how_to_place_the_file(place):
    env = os.environ | {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_TIMEOUT": "2",
                        "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}  # fmt: skip
    done = genwright("models", "pull", "chatterbot-english", env=env)
    assert done.returncode == 4
    assert "--from" in done.stderr


def test_a_folder_that_may_not_be_written_is_a_sentence(place):
    (place / "taken").write_text("a file where the run should be")
    done = genwright("run", "r.yaml", "--out", "taken")
    assert done.returncode != 0
    assert "taken" in done.stderr


def test_a_full_disk_is_a_sentence_and_loses_nothing(place):
    small = place / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", small], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount")
    try:
        done = genwright("tune", "r.yaml", "--out", small / "run")
        assert done.returncode not in (0, 1), done.stderr
        assert "space" in done.stderr or "disk" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        done = genwright("tune", "r.yaml", "--out", small / "run")
        assert done.returncode == 0, done.stderr
        assert not [path for path in (small / "run").rglob("*") if "tmp" in path.name]
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_ctrl_c_keeps_what_was_done_and_a_second_run_goes_on(place):
    write_recipe(place, train=RECIPE["train"] | {"max_steps": 2000, "checkpoint_every": 5, "epochs": 2000})
    started = subprocess.Popen([*GENWRIGHT, "tune", "r.yaml", "--out", "run"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any((place / "run/checkpoints").glob("*")), started)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    assert "goes on" in err
    reached = steps(place)
    assert reached
    again = subprocess.Popen([*GENWRIGHT, "tune", "r.yaml", "--out", "run"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(steps(place)) > len(reached) + 3, again)
    again.kill()
    again.communicate()
    now = steps(place)
    assert now[: len(reached)] == reached, "the second run goes on; it does not begin again"


def test_a_killed_export_leaves_nothing_half_and_a_second_one_works(place):
    assert genwright("tune", "r.yaml", "--out", "run").returncode == 0
    for delay in (0.3, 0.9, 1.5, 2.1):
        started = subprocess.Popen([*GENWRIGHT, "export", "run", "--format", "safetensors"], stderr=subprocess.DEVNULL)
        time.sleep(delay)
        started.kill()
        started.wait()
        folder = place / "run/exports/safetensors"
        assert not folder.exists() or (folder / "model.safetensors").exists()
    done = genwright("export", "run", "--format", "safetensors")
    assert done.returncode == 0, done.stderr
    assert (place / "run/exports/safetensors/model.safetensors").exists()


def steps(place):
    """(step, loss) of every step said so far."""
    path = place / "run/events.jsonl"
    facts = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return [(fact["step"], fact["loss"]) for fact in facts if fact["event"] == "step"]


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
