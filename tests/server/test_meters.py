"""Meters: what they count is what is scraped, from many threads, and cheaply."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from genwright.server.meters import Facts, Meters, here


def _scraped(
    meters: Meters, memory: dict[str, int] | None = None
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(meters.text(memory).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_an_answer_is_counted_from_its_beginning_to_its_end() -> None:
    meters, model = Meters(), (("model_name", "tiny"),)
    meters.started("tiny")
    meters.queue(3)
    found = _scraped(meters)
    assert found["genwright_num_requests_running", model] == 1
    assert found["genwright_num_requests_waiting", ()] == 3
    meters.first_token("tiny", 0.03)
    meters.token_gap("tiny", 0.002)
    meters.token_gap("tiny", 0.2)
    meters.finished("tiny", "stop", 7, 3, 0.25)
    found = _scraped(meters, {"tiny": 1000})
    assert found["genwright_num_requests_running", model] == 0
    assert found["genwright_time_to_first_token_seconds_sum", model] == 0.03
    assert found["genwright_inter_token_latency_seconds_count", model] == 2
    assert found["genwright_inter_token_latency_seconds_bucket", (("le", "0.0025"), *model)] == 1
    assert found["genwright_e2e_request_latency_seconds_count", model] == 1
    assert found["genwright_prompt_tokens_total", model] == 7
    assert found["genwright_generation_tokens_total", model] == 3
    assert found["genwright_requests_total", (*model, ("status", "stop"))] == 1
    assert found["genwright_model_memory_bytes", model] == 1000
    assert ("genwright_model_memory_bytes", model) not in _scraped(meters)  # it has been unloaded


def test_a_method_that_nobody_knows_makes_no_label_of_its_own() -> None:
    meters = Meters()
    meters.answered("sk-CANARY", "/v1/models", 405, 0.001)
    assert b"CANARY" not in meters.text()
    assert b'http_request_method="_OTHER"' in meters.text()


def test_nothing_is_lost_between_threads() -> None:
    meters = Meters()

    def work() -> None:
        for number in range(500):
            meters.started(f"m{number % 3}")
            meters.finished(f"m{number % 3}", "stop", 1, 2, 0.1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = _scraped(meters)
    assert sum(v for (name, _), v in found.items() if name == "genwright_generation_tokens_total") == 8000
    assert sum(v for (name, _), v in found.items() if name == "genwright_num_requests_running") == 0


def test_the_request_that_is_answered_here_hears_of_it() -> None:
    meters, facts = Meters(), Facts()
    mark = here.set(facts)
    meters.started("tiny")
    meters.first_token("tiny", 0.5)
    meters.finished("tiny", "length", 4, 2, 1.0)
    here.reset(mark)
    meters.finished("tiny", "stop", 9, 9, 1.0)  # another's
    assert facts.first == 0.5
    assert [(one.model, one.status, one.prompt_tokens, one.completion_tokens) for one in facts.asked] == [
        ("tiny", "length", 4, 2)
    ]


def test_a_call_costs_a_few_microseconds() -> None:
    meters = Meters()
    for call in (lambda: meters.token_gap("tiny", 0.01), lambda: meters.first_token("tiny", 0.01),
                 lambda: meters.queue(1), lambda: meters.answered("GET", "/v1/models", 200, 0.01)):  # fmt: skip
        assert _best(call) < 10e-6  # about 1 µs on a quiet machine


def _best(call: Callable[[], object], count: int = 2000) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        times.append((time.perf_counter() - began) / count)
    return min(times)
