import asyncio

from fst_core import Frontend, Request, Settings
from fst_core.errors import FstError


class GoodFrontend(Frontend):
    class Settings(Settings):
        port: int
        """Where it listens."""

    def __init__(self, settings):
        self.settings = settings
        self.answers = set()

    async def answer(self, engine, prompt):
        try:
            return (await engine.generate(Request(prompt=prompt))).text
        except FstError as error:
            return f"Sorry: {error}"

    async def connected(self, engine, reader, writer):
        self.answers.add(asyncio.current_task())
        try:
            prompt = (await reader.readline()).decode().rstrip("\n")
            writer.write((await self.answer(engine, prompt)).encode())
        finally:
            self.answers.discard(asyncio.current_task())
            writer.close()

    async def serve(self, engine, stopping):
        def connected(reader, writer):
            return self.connected(engine, reader, writer)

        server = await asyncio.start_server(connected, "127.0.0.1", self.settings.port)
        try:
            await self.until(stopping)
        finally:
            server.close()
        await self.drain()

    async def until(self, stopping):
        await stopping.wait()

    async def drain(self):
        if self.answers:
            await asyncio.wait(self.answers)


class AsciiFrontend(GoodFrontend):
    async def answer(self, engine, prompt):
        return (await super().answer(engine, prompt)).encode("ascii", "ignore").decode()


class MortalFrontend(GoodFrontend):
    async def answer(self, engine, prompt):
        answer = await super().answer(engine, prompt)
        if answer.startswith("Sorry"):
            self.dead.set()
        return answer

    async def until(self, stopping):
        self.dead = asyncio.Event()
        waits = {asyncio.create_task(event.wait()) for event in (stopping, self.dead)}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()


class RudeFrontend(GoodFrontend):
    async def drain(self):
        for task in self.answers:
            task.cancel()


class DeafFrontend(GoodFrontend):
    async def until(self, stopping):
        await asyncio.Event().wait()


class StubbornFrontend(GoodFrontend):
    async def until(self, stopping):
        try:
            await stopping.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(3)


class LeavingBehindFrontend(GoodFrontend):
    async def until(self, stopping):
        self.ticking = asyncio.create_task(asyncio.sleep(1000))
        await super().until(stopping)
