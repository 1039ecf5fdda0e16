"""Things: one of every kind that somebody can own on a server, made by the official client."""

from __future__ import annotations

import json
import time

from openai import OpenAI
from served import Server

ROWS = "\n".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]})
    for n in range(10)
)
HELLO = {"model": "apprentice", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
LINE = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": HELLO}
ITEMS = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"said": "Hello"}}]}}
_PATIENCE = 300.0  # seconds for a job


def one_of_each(server: Server, owner: str, paths: set[str]) -> dict[str, str]:
    """Ids by the path of their collection, as the document spells it: {"/v1/files": "file-…"}.

    `paths` are the document's: what it does not name is not made. Beside the kinds that have a path of their own, there
    are the file of a tuning, of a batch, and a part of an upload.
    """
    client = OpenAI(base_url=server.v1, api_key=server.keys[owner], max_retries=0)
    rows = client.files.create(file=("rows.jsonl", ROWS.encode()), purpose="fine-tune").id
    lines = client.files.create(file=("lines.jsonl", json.dumps(LINE).encode()), purpose="batch").id
    text = client.files.create(file=("text.txt", b"The ferry leaves at seven."), purpose="assistants").id
    upload = client.uploads.create(filename="u.jsonl", purpose="batch", bytes=3, mime_type="application/jsonl").id
    [picture] = client.images.generate(model="painter", prompt="a red hat", response_format="url").data or []
    assert picture.url
    made = {
        "/v1/files": rows, "lines": lines, "text": text, "/v1/uploads": upload,
        "/v1/images/files": picture.url.rpartition("/")[2],
        "part": client.uploads.parts.create(upload, data=b"{}\n").id,
        "/v1/chat/completions": client.chat.completions.create(**HELLO, store=True).id,
        "/v1/responses": client.responses.create(model="apprentice", input="Hello", max_output_tokens=16).id,
        "/v1/batches": client.batches.create(
            completion_window="24h", endpoint="/v1/chat/completions", input_file_id=lines
        ).id,
        "/v1/fine_tuning/jobs": client.fine_tuning.jobs.create(
            model="apprentice", training_file=rows, hyperparameters={"n_epochs": 1}
        ).id,
    }  # fmt: skip
    if "/v1/vector_stores" in paths:
        store = client.vector_stores.create(name="ferries").id
        made |= {
            "/v1/vector_stores": store,
            "/v1/vector_stores/{id}/files": client.vector_stores.files.create_and_poll(
                text, vector_store_id=store, poll_interval_ms=100
            ).id,
            "/v1/vector_stores/{id}/file_batches": client.vector_stores.file_batches.create(store, file_ids=[text]).id,
        }
    if "/v1/evals" in paths:
        made |= _judged(client)
    made["/v1/models"] = _tuned(client, made["/v1/fine_tuning/jobs"])
    return made


def _judged(client: OpenAI) -> dict[str, str]:
    eval = client.evals.create(
        data_source_config={"type": "custom", "item_schema": {"properties": {"said": {"type": "string"}}}},
        testing_criteria=[{"type": "string_check", "name": "hello", "operation": "eq", "input": "{{item.said}}",
                           "reference": "Hello"}],
    ).id  # fmt: skip
    run = client.evals.runs.create(eval, data_source=ITEMS).id
    end = time.monotonic() + _PATIENCE
    while client.evals.runs.retrieve(run, eval_id=eval).status != "completed":
        assert time.monotonic() < end
        time.sleep(0.1)
    [item] = client.evals.runs.output_items.list(run, eval_id=eval)
    return {"/v1/evals": eval, "/v1/evals/{id}/runs": run, "/v1/evals/{id}/runs/{run}/output_items": item.id}


def _tuned(client: OpenAI, job: str) -> str:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        found = client.fine_tuning.jobs.retrieve(job)
        if found.status == "succeeded":
            assert found.fine_tuned_model
            return found.fine_tuned_model
        assert found.status in ("validating_files", "queued", "running"), found.error
        time.sleep(0.5)
    raise TimeoutError(f"{job} is not done after {_PATIENCE:.0f} s")
