import asyncio
import sys

from fst_core import Frontend, Request, Settings


class LinesSettings(Settings):
    fails: bool = False
    """Whether it raises at once."""
    stubborn: bool = False
    """Whether it goes on after it was told to stop."""


class Lines(Frontend):
    def __init__(self, settings):
        self.settings = settings

    async def serve(self, engine, stopping):
        if self.settings.fails:
            raise RuntimeError("the port is taken")

        async def answer(reader, writer):
            prompt = (await reader.readline()).decode().strip()
            async for chunk in engine.stream(Request(prompt=prompt, max_new_tokens=5)):
                writer.write(chunk.text.encode())
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            print("port", server.sockets[0].getsockname()[1], file=sys.stderr, flush=True)
            await stopping.wait()
            if self.settings.stubborn:
                print("stubborn", file=sys.stderr, flush=True)
                await asyncio.sleep(600)
