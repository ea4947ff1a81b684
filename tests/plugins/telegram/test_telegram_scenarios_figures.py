"""How quick, how fair and how frugal the bot of `telegram` is: the figures that it promises."""

from __future__ import annotations

import statistics

import pytest
from bot_api_limits import Limits
from bot_process import BotProcess
from people import Group, Person, until

FIRST_TEXT = 1.5
"""Seconds from the engine's first token to the first text that a person sees."""


async def test_the_first_text_is_there_soon_after_the_first_token(tmp_path):
    async with BotProcess(tmp_path, public=True, running_per_user=2) as bot:
        alice, group = Person(bot.api), Group(bot.api)
        places = {"private": alice.chat, "group": group}
        for name, place in places.items():
            alice.says(f"@fst_bot tokens=9 speed=10 first=1 name={name}", place=place)
        for name, place in places.items():
            await place.sees(f"{name}1")
            calls = bot.api.calls_of(chat=place.id)
            shown = [c for c in calls if f"{name}1" in c.parameters.get("text", "")]
            (asked,) = bot.asked_about(f"name={name}")
            assert shown[0].at - asked["times"]["first"] <= FIRST_TEXT


async def test_50_people_at_once_wait_equally_long(tmp_path):
    # A second of the clock is a fifth of one: an answer of one, 50 of them on 4 slots: 13 seconds.
    async with BotProcess(tmp_path, scale=5, public=True, engine={"slots": 4}) as bot:
        people = [Person(bot.api, f"P{n}") for n in range(50)]
        began = bot.api.now()
        for person in people:
            person.says(f"tokens=10 speed=10 name=w{person.id}x")
        waits = []
        for person in people:
            answer = await person.chat.gets(f"w{person.id}x10")
            waits.append(answer.at - began)
        assert len(bot.asked) == 50
        assert max(waits) <= 2 * statistics.median(waits) + 1
        assert bot.api.pace.violations == []
        # Everybody is told at once that something goes on.
        for person in people:
            first = bot.api.calls_of(
                "sendMessageDraft", "sendChatAction", "sendMessage", chat=person.id
            )[0]
            assert first.at - began < 15


@pytest.mark.slow
async def test_memory_is_flat_over_5000_updates(tmp_path):
    limits = Limits(burst=10**6, group_minute=10**6, bot_second=10**6)
    async with BotProcess(
        tmp_path, scale=50, public=True, limits=limits, environment={"FST_FAKE_LOG": "WARNING"}
    ) as bot:
        people = [Person(bot.api, f"P{n}") for n in range(50)]
        memory = []
        for turn in range(50):
            for person in people:
                person.says(f"turn {turn} tokens=3 name=t{turn}x")
            for person in people:
                person.says("/help")
            for person in people:
                await person.chat.gets(f"t{turn}x3")
            await until(bot.api, lambda: not bot.api.updates, "all taken")
            memory.append(bot.memory)
            bot.api.calls.clear()
            for person in people:
                person.chat.messages.clear()
        # The first turns fill what is kept for each of the people.
        assert max(memory[25:]) - memory[24] < 8 << 20, memory
