"""The hub source against a server on this machine that answers as the hub does: right files, no code, clear words."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from genwright.data.sources.hub import files_of

REPO = {
    "README.md": b"# verses", "dataset_infos.json": b"{}", "script.py": b"raise SystemExit('never run')",
    "data/train-00000.jsonl": b'{"text": "one"}\n{"text": "two"}\nbroken\n',
    "data/test-00000.jsonl": b'{"text": "three"}\n',
    "french/train.csv": b"text\nun\n",
}  # fmt: skip
COMMIT = "a" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer()

    def answer(self, head=False):
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/org/verses/tree/main"):
            body = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in REPO.items()]
            return self.send(200, json.dumps(body).encode(), {})
        name = path.removeprefix("/datasets/org/verses/resolve/main/")
        if name in REPO:
            return self.send(
                200, REPO[name], {"ETag": '"' + name.replace("/", "") + '"', "X-Repo-Commit": COMMIT}, head
            )
        self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send(self, status, body, headers, head=False):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Reads in a process of its own, for the hub's library takes its address when it is imported."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path_factory.mktemp("hub")

    def run(**options):
        code = (
            "import json\nfrom genwright.core import Row, GenwrightError, choose\n"
            f"source = choose('sources', {{'source': 'hub', **{options!r}}}, key='source')\n"
            "try:\n    print(json.dumps([[r.where, r.fields if isinstance(r, Row) else r.reason] for r in source()]))\n"
            "except GenwrightError as error:\n"
            "    print(json.dumps([type(error).__name__, error.message, error.hint]))\n"
        )
        there = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
        }
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | there)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    yield run
    server.shutdown()
    server.server_close()


def test_the_files_of_a_split_are_read_and_its_code_is_not_run(read):
    rows = read(dataset="org/verses")
    assert rows[:2] == [
        ["org/verses/data/train-00000.jsonl:1", {"text": "one"}],
        ["org/verses/data/train-00000.jsonl:2", {"text": "two"}],
    ]
    assert "is not JSON" in rows[2][1]
    assert [fields for _, fields in read(dataset="org/verses@main", split="test")] == [{"text": "three"}]
    assert [fields for _, fields in read(dataset="org/verses", revision="main", subset="french")] == [{"text": "un"}]


def test_what_is_not_there_is_said_with_what_to_do(read):
    kind, message, hint = read(dataset="org/nothing")
    assert kind == "DataError"
    assert "org/nothing" in message
    assert "models list" in hint


def test_the_files_of_a_split_are_found_by_their_names():
    names = [
        "train.jsonl",
        "train.parquet",
        "test.parquet",
        "x/validation-1.parquet",
        "README.md",
        "config.json",
        "a.py",
    ]
    assert files_of(names, "train", "") == ["train.parquet"]
    assert files_of(names, "validation", "") == ["x/validation-1.parquet"]
    assert files_of(names, "train", "x") == []
    assert files_of(["a.jsonl.gz", "b.jsonl.gz"], "train", "") == ["a.jsonl.gz", "b.jsonl.gz"]
    assert files_of(["only.csv"], "test", "") == []
