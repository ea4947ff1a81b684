"""The server keeps what its OpenAPI document says: requests made up from it, right and wrong ones."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import hypothesis
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from serving import until

CASES = 2000
# Requests that are right by the document may still be refused: no JSON Schema says that `n` times
# the prompts is bounded, that `best_of` equals `n`, or which ids a vocabulary has.
LEFT_OUT = {"positive_data_acceptance"}
SERVE = """
import asyncio
from serving import FastapiFrontend, FastapiSettings, ScriptedEngine

frontend = FastapiFrontend(FastapiSettings(port=0, log_requests=False))
asyncio.run(frontend.serve(ScriptedEngine(), asyncio.Event()))
"""


@pytest.fixture
def server(tmp_path):
    """A server in a process of its own, whose memory is its own, and its address."""
    told = tmp_path / "told"
    with (
        told.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=Path(__file__).parent, stderr=file
        ) as process,
    ):
        try:
            until(lambda: told.read_text().endswith("\n"), 60)
            address = told.read_text().removeprefix("serve: ").strip()
            yield psutil.Process(process.pid), address
        finally:
            process.terminate()


@pytest.mark.slow
def test_two_thousand_cases_meet_no_failure_and_no_violation(server):
    process, address = server
    load_all_checks()
    checks = [check for check in CHECKS.get_all() if check.__name__ not in LEFT_OUT]
    done, statuses = Counter(), Counter()
    with requests.Session() as session:
        document = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [each.ok() for each in document.get_all_operations()]
        with_body = [operation for operation in operations if operation.body]

        def cases(operation, mode, number):
            @hypothesis.settings(
                max_examples=number,
                database=None,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(operation.as_strategy(generation_mode=mode))
            def each(case):
                answer = case.call(session=session)
                case.validate_response(answer, checks=checks)
                done[operation.label] += 1
                statuses[answer.status_code] += 1

            each()

        for operation in operations:
            cases(operation, GenerationMode.POSITIVE, 10)
        memory = process.memory_info().rss
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for operation in with_body:
                cases(operation, mode, CASES // (2 * len(with_body)))
        assert done.total() >= CASES, done
        assert statuses.keys() >= {200, 400, 404}
        assert max(statuses) < 500
        assert process.memory_info().rss - memory < 50e6
        answer = session.post(f"{address}/v1/completions", json={"prompt": "a"}, timeout=10)
        assert answer.json()["choices"][0]["text"] == "Roses are red."
