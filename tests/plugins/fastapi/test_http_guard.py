"""Who may ask: keys, origins, hosts, ids of requests, and what is logged (S11, S12, S13 and S14)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from statistics import median

import pytest
from fst_fastapi.app import build_app
from fst_fastapi.keys import read_keys
from fst_fastapi.service import Service
from fst_fastapi.settings import FastapiSettings
from wire import Slow, run, serving, until

from fst_core.errors import UserError
from fst_core.settings import validate

KEY = "the-first-key-of-this-test"
OTHER = "the-other-key-of-this-test"
PUBLIC = {"/", "/page.js", "/page.css", "/page.svg", "/healthz", "/readyz"}


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# two people\nanna:{KEY}\nboris:{OTHER}\n\n")
    path.chmod(0o600)
    return {"key_file": str(path)}


def settings_of(**values):
    return validate(FastapiSettings, {"port": 0, "log_requests": False, **values})


def paths_of(engine, settings):
    """Every path of the application, with its methods."""

    async def build():
        return build_app(Service(engine, settings), read_keys(settings))

    routes = asyncio.run(build()).routes
    return [(r.path.replace("{name:path}", "x").replace("{name}", "x"), r.methods) for r in routes]


def test_every_route_but_the_page_and_the_probes_needs_a_key(keys):
    known = paths_of(Slow(), settings_of(**keys))
    assert {path for path, _ in known} >= {"/metrics", "/docs", "/openapi.json", "/v1/models"}
    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
    disguises = [
        "//v1/models", "/v1/%2e%2e/metrics", "/V1/models", "/v1/models/", "/healthz/", "/%68ealthz/",
        "/readyz/../metrics", "/page.js/../docs", "/healthz%00", "/nothing", "/v1/models?api_key=" + KEY,
        "/healthz;/v1/models", "*",
    ]  # fmt: skip

    async def scenario(site):
        for path in [*(path for path, _ in known), *disguises]:
            for method in methods:
                answer = await site.client.request(method, path)
                if path in PUBLIC and method in {"GET", "HEAD"}:
                    assert answer.status_code == 200, (method, path)
                    continue
                assert answer.status_code == 401, (method, path)
                if method != "HEAD":
                    assert answer.json()["error"]["code"] == "invalid_api_key"
        for name, value in {
            "x-api-key": KEY,
            "api-key": KEY,
            "authorization": KEY,
            "authorization ": f"Basic {KEY}",
            "cookie": f"key={KEY}",
        }.items():
            answer = await site.get("/v1/models", **{name.strip(): value})
            assert answer.status_code == 401, name
        for wrong in ("x", KEY[:-1], KEY + "x", KEY.upper(), f"anna:{KEY}", "ключ".encode()):
            value = b"Bearer " + (wrong if isinstance(wrong, bytes) else wrong.encode())
            answer = await site.client.get("/v1/models", headers={b"authorization": value})
            assert answer.status_code == 401, wrong
        for right in (KEY, OTHER):
            answer = await site.get("/v1/models", authorization=f"Bearer {right}")
            assert answer.status_code == 200

    run(scenario, Slow(), **keys)


def test_with_a_key_every_documented_path_answers(keys):
    async def scenario(site):
        for path, methods in paths_of_site:
            if "GET" in methods:
                answer = await site.get(path)
                assert answer.status_code in {200, 404}, path

    paths_of_site = paths_of(Slow(), settings_of(**keys))
    run(scenario, Slow(), key=KEY, **keys)


def test_comparing_keys_takes_no_longer_for_a_key_that_is_nearly_right(keys):
    known = read_keys(settings_of(**keys))

    def seconds(key):
        since = time.perf_counter()
        for _ in range(20):
            with pytest.raises(Exception, match="key"):
                known.holder(b"Bearer " + key)
        return time.perf_counter() - since

    near = KEY[:-2].encode() + b"xx"
    far = b"z" * len(KEY)
    pairs = [(seconds(near), seconds(far)) for _ in range(100)]
    ratio = median(a for a, _ in pairs) / median(b for _, b in pairs)
    # Hashes of both are compared, so that nothing of them can show; this is a look at the clock.
    assert 0.7 < ratio < 1.4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("short", "shorter than 16"),
        ("", "no key"),
        ("# nothing\n", "no key"),
        ("anna:" + KEY + "\nanna:" + OTHER, "two keys"),
        ("anna " + KEY, "neither a key"),
        ("ключ-которого-не-бывает", "ASCII"),
    ],
)
def test_a_bad_key_file_is_refused_without_showing_it(tmp_path, content, words):
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(UserError, match=words) as raised:
        read_keys(settings_of(key_file=str(path)))
    for key in ("short", KEY, OTHER, "ключ"):
        assert key not in str(raised.value).replace("shorter", "")


def test_a_key_comes_from_a_variable_or_a_file_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("THE_KEY", KEY)
    assert read_keys(settings_of(key_env="THE_KEY"))
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(UserError, match="THE_KEY is not set"):
        read_keys(settings_of(key_env="THE_KEY"))
    with pytest.raises(UserError, match="No such file"):
        read_keys(settings_of(key_file=str(tmp_path / "none")))
    assert not [name for name in FastapiSettings.model_fields if name in {"key", "keys", "api_key"}]


def test_it_does_not_listen_beyond_this_machine_without_a_key():
    async def start(**settings):
        async with serving(Slow(), **settings) as site:
            return (await site.get("/readyz")).status_code

    for host in ("0.0.0.0", "::"):
        with pytest.raises(UserError, match="allow_anonymous"):
            asyncio.run(start(host=host))
    assert asyncio.run(start(host="localhost")) == 200
    assert asyncio.run(start(host="0.0.0.0", allow_anonymous=True)) == 200


@pytest.mark.skipif(os.name != "posix", reason="elsewhere files have no such modes")
def test_a_key_file_that_others_can_reach_is_taken_with_a_warning(keys, capsys):
    path = Path(keys["key_file"])
    assert read_keys(settings_of(**keys))
    assert capsys.readouterr().err == ""
    path.chmod(0o604)
    assert read_keys(settings_of(**keys))
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert "chmod 600" in line
    assert KEY not in line


def test_no_other_site_s_page_may_ask():
    evil = ("https://evil.example", "null", "http://127.0.0.1", "http://localhost:1")

    async def scenario(site):
        for origin in evil:
            preflight = {"access-control-request-method": "POST", "origin": origin}
            answer = await site.client.options("/v1/completions", headers=preflight)
            assert answer.status_code in {403, 405}
            asked = await site.post("/v1/completions", {"prompt": "a"}, origin=origin)
            assert asked.status_code == 403
            read = await site.get("/v1/models", origin=origin)
            for each in (answer, asked, read):
                assert "access-control-allow-origin" not in each.headers
        own = await site.post(
            "/v1/completions", {"prompt": "a"}, origin=f"http://127.0.0.1:{site.port}"
        )
        assert own.status_code == 200

    run(scenario, Slow(0.001))


def test_the_origins_of_the_settings_may_ask():
    allowed = "https://good.example"

    async def scenario(site):
        preflight = {"access-control-request-method": "POST", "origin": allowed}
        answer = await site.client.options("/v1/completions", headers=preflight)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == allowed
        assert "access-control-allow-credentials" not in answer.headers
        asked = await site.post("/v1/completions", {"prompt": "a"}, origin=allowed)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == allowed
        assert asked.headers["vary"] == "Origin"
        refused = await site.post("/v1/completions", {}, origin=allowed)
        assert refused.status_code == 400
        assert refused.headers["access-control-allow-origin"] == allowed
        for origin in (allowed + ".evil.example", "http://good.example", "https://evil.example"):
            asked = await site.post("/v1/completions", {"prompt": "a"}, origin=origin)
            assert "access-control-allow-origin" not in asked.headers

    run(scenario, Slow(0.001), allowed_origins=[allowed])


def test_a_name_that_a_stranger_gave_this_machine_is_refused():
    async def scenario(site):
        for host in (
            "evil.example",
            f"evil.example:{site.port}",
            "localhost.evil.example",
            "",
            "a@b",
        ):
            answer = await site.get("/v1/models", host=host)
            assert answer.status_code == 421, host
            assert answer.json()["error"]["code"] == "unknown_host"
        for host in ("localhost", f"LOCALHOST:{site.port}", "127.0.0.1", "[::1]:80", "fst.example"):
            assert (await site.get("/v1/models", host=host)).status_code == 200, host

    run(scenario, Slow(), allowed_hosts=["fst.example"])


def test_each_key_has_its_own_rate(keys):
    async def scenario(site):
        async def ask(key):
            body = {"prompt": "a", "max_tokens": 1}
            return await site.post("/v1/completions", body, authorization=f"Bearer {key}")

        statuses = [(await ask(KEY)).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        refused = await ask(KEY)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await ask(OTHER)).status_code == 200

    run(scenario, Slow(0.001), requests_per_minute=3, **keys)


def test_each_key_has_its_own_concurrency(keys):
    engine = Slow(0.02)

    async def scenario(site):
        async def ask(key, tokens):
            body = {"prompt": "a", "max_tokens": tokens}
            return await site.post("/v1/completions", body, authorization=f"Bearer {key}")

        running = [asyncio.create_task(ask(KEY, 50)) for _ in range(2)]
        await until(lambda: engine.running == 2)
        assert (await ask(KEY, 1)).status_code == 429
        assert (await ask(OTHER, 1)).status_code == 200
        assert {each.status_code for each in await asyncio.gather(*running)} == {200}
        assert (await ask(KEY, 1)).status_code == 200

    run(scenario, engine, concurrent_requests=2, **keys)


def test_an_id_of_a_request_is_echoed_if_it_is_harmless():
    engine = Slow(0.01)

    async def scenario(site):
        for good in ("abc", "A-1._z", "x" * 64):
            answer = await site.get("/readyz", **{"x-request-id": good})
            assert answer.headers["x-request-id"] == good
        for bad in ("x" * 65, "x" * 10_000, "a b", "emoji-👍".encode(), "", "a\tb", "{}"):
            value = bad if isinstance(bad, bytes) else bad.encode()
            answer = await site.client.get("/readyz", headers={b"x-request-id": value})
            assert answer.headers["x-request-id"] != value.decode()
            assert answer.headers["x-request-id"].isalnum()
        same = {"x-request-id": "shared"}
        _, leaving = await site.raw(
            body={"prompt": "a", "max_tokens": 4000}, head="x-request-id: shared\r\n"
        )
        staying = asyncio.create_task(
            site.post("/v1/completions", {"prompt": "b", "max_tokens": 30}, **same)
        )
        await until(lambda: engine.running == 2)
        leaving.close()
        answer = await staying
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] == 30
        assert answer.json()["id"] != "cmpl-shared"

    run(scenario, engine)


def test_the_log_has_a_line_of_json_for_each_request_and_no_texts(capsys, keys):
    async def scenario(site):
        await site.post("/v1/completions", {"prompt": "a secret prompt", "max_tokens": 2})
        await site.get("/forged%0a%7B%22level%22%3A1%7D", **{"x-request-id": "forged{}"})
        await site.get("/v1/models", authorization="Bearer a-secret-that-is-wrong")
        await site.post("/v1/completions", {"prompt": "this request fails", "max_tokens": 1})

    class Failing(Slow):
        async def stream(self, request):
            if "fails" in request.prompt:
                raise RuntimeError("a surprise\nof two lines")
            async for chunk in super().stream(request):
                yield chunk

    run(scenario, Failing(0.001), key=KEY, log_requests=True, **keys)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("serve: http://127.0.0.1:")
    told = [json.loads(line) for line in lines[1:]]
    assert [each["status"] for each in told] == [200, 404, 401, 500]
    assert told[0]["key"] == "anna"
    assert told[0]["completion_tokens"] == 2
    assert told[3]["level"] == "error"
    assert told[3]["failure"] == "RuntimeError: a surprise of two lines"
    whole = "\n".join(lines)
    for secret in ("secret", KEY, OTHER, "Bearer"):
        assert secret not in whole


def test_a_failure_is_told_by_its_id_alone(keys):
    class Failing(Slow):
        async def stream(self, request):
            raise RuntimeError("of the inside")
            yield

    async def scenario(site):
        answer = await site.post("/v1/completions", {"prompt": "a"}, **{"x-request-id": "mine"})
        assert answer.status_code == 500
        assert "inside" not in answer.text
        assert "mine" in answer.json()["error"]["message"]
        whole = (await site.get("/metrics")).text
        assert KEY not in whole
        assert 'outcome="failed"} 1.0' in whole

    run(scenario, Failing(), key=KEY, log_requests=False, **keys)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_it_speaks_https(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(cert)],
        check=False, capture_output=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr

    async def scenario():
        settings = {"tls_cert": str(cert), "tls_key": str(key)}
        async with serving(Slow(), **settings) as site:
            assert site.frontend.url.startswith("https://")
            trust = ssl.create_default_context(cafile=str(cert))
            _, writer = await asyncio.open_connection("localhost", site.port, ssl=trust)
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(scenario())
    with pytest.raises(UserError, match="tls_cert"):
        asyncio.run(start_with(tls_cert=str(key), tls_key=str(cert)))


async def start_with(**settings):
    async with serving(Slow(), **settings):
        pass


def test_a_busy_port_is_one_clear_line():
    async def scenario():
        async with serving(Slow()) as site:
            with pytest.raises(UserError, match=rf"port {site.port} .*in use.*--port"):
                await start_with(port=site.port)

    asyncio.run(scenario())
