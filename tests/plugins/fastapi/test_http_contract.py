"""The frontend `fastapi` by the contract of frontends."""

from __future__ import annotations

import httpx
from serving import free_port

from fst_core.testing import FrontendContract

PORT = free_port()


class TestFastapi(FrontendContract):
    use = "fastapi"
    settings = {"port": PORT, "log_requests": False}
    seconds = 30.0

    async def ask(self, prompt):
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(
                f"http://127.0.0.1:{PORT}/v1/completions", json={"prompt": prompt}, timeout=30
            )
        answer.raise_for_status()
        return answer.json()["choices"][0]["text"]
