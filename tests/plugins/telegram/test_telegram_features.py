"""What the bot of `telegram` does for people, in this process, towards the fake Bot API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from bot_api import BotApi
from bot_api_limits import Limits
from fst_telegram.bot import TelegramFrontend
from fst_telegram.settings import TelegramSettings
from fst_telegram.store import Store
from people import Group, Person, until

from fst_core import Chunk
from fst_core.errors import PromptTooLong
from fst_core.settings import validate
from fst_core.testing.echo import EchoEngine

TOKEN = "42:AAscrambled_token-of_nobody"


class Recorder(EchoEngine):
    """Answers " n" to its n-th request, or what the text says behind "say:"; notes what it was asked."""

    def __init__(self, chat):
        self.chat, self.asked = chat, []

    def describe(self):
        sampling = {"temperature": {"default": 1.0}, "top_p": {"default": 0.9}}
        return {
            **super().describe(),
            "context_length": 10**5,
            "chat": self.chat,
            "sampling": sampling,
        }

    async def stream(self, request):
        self.asked.append(request)
        said = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        if said == "hang":
            await asyncio.sleep(1000)
        if said == "long":
            raise PromptTooLong(
                "the prompt has 281 ids, and the model takes 256: shorten the prompt"
            )
        if said == "bug":
            raise RuntimeError(said)
        answer = said.partition("say:")[2] or f" {len(self.asked)}"
        for at in range(0, len(answer), 500):
            yield Chunk(text=answer[at : at + 500], ids=(1, 2))
            await asyncio.sleep(0.03 if len(answer) > 500 else 0)
        yield Chunk(finish_reason="stop")


class InProcess:
    """A bot that is served in this event loop."""

    def __init__(self, tmp_path, monkeypatch, chat="default", **settings):
        monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
        limits = Limits(burst=10**6, group_minute=10**6, bot_second=10**6)
        self.api, self.engine = BotApi(TOKEN, limits=limits), Recorder(chat)
        self.settings = {
            "state": str(tmp_path / "state.sqlite3"), "public": True, "admins": [31],
            "draft_seconds": 0.02, "edit_seconds": 0.02, **settings,
        }  # fmt: skip

    async def __aenter__(self):
        await self.api.__aenter__()
        await self.serve()
        return self

    async def serve(self):
        """Begin to serve."""
        settings = validate(TelegramSettings, {**self.settings, "api_base": self.api.url})
        self.stopping = asyncio.Event()
        self.serving = asyncio.create_task(
            TelegramFrontend(settings).serve(self.engine, self.stopping)
        )
        asked = len(self.api.calls_of("getUpdates"))
        await until(
            self.api, lambda: len(self.api.calls_of("getUpdates")) > asked, "a bot that asks"
        )

    async def __aexit__(self, *_):
        self.stopping.set()
        await asyncio.wait_for(self.serving, 30)
        await self.api.__aexit__()
        assert self.api.faults == []

    @property
    def prompts(self):
        """What the engine was asked."""
        return [
            r.prompt if isinstance(r.prompt, str) else [m.content for m in r.prompt]
            for r in self.engine.asked
        ]


@pytest.fixture
def bot_of(tmp_path, monkeypatch):
    return lambda chat="default", **settings: InProcess(tmp_path, monkeypatch, chat, **settings)


async def answered(person, said, **place):
    """Say something and return the answer, with its buttons."""
    posted = person.says(said, **place)
    return await place.get("place", person.chat).gets(lambda m: m.buttons and m.id > posted.id)


async def test_a_text_is_continued_below_itself_and_on_and_again(bot_of):
    async with bot_of() as bot:
        alice = Person(bot.api)
        answer = await answered(alice, "Once")
        assert answer.text == "Once 1"
        assert [(e["type"], e["length"]) for e in answer.entities] == [("bold", 4)]
        assert (await answered(alice, "/continue")).text == "2"
        assert (await answered(alice, "/retry")).text == "3"
        alice.presses(answer, "Repeat")
        assert (await alice.chat.gets(lambda m: m.buttons)).text == "Once 4"
        assert bot.prompts == ["Once", "Once 1", "Once 1", "Once"]


async def test_a_conversation_is_remembered_until_new(bot_of):
    async with bot_of("trained") as bot:
        alice = Person(bot.api)
        assert (await answered(alice, "a")).text == "1"
        await answered(alice, "b")
        again = await answered(alice, "/retry")
        await answered(alice, "/continue")
        assert bot.prompts[1:] == [
            ["a", " 1", "b"], ["a", " 1", "b"], ["a", " 1", "b", " 3", "Go on."]
        ]  # fmt: skip
        alice.presses(again, "Repeat")
        await until(bot.api, lambda: len(bot.prompts) == 5, "a request")
        assert bot.prompts[4] == ["a", " 1", "b"]
        alice.says("/new")
        await alice.chat.gets("new conversation")
        await answered(alice, "c")
        assert bot.prompts[5] == ["c"]
        bob = Person(bot.api, "Bob")
        await answered(bob, "d")
        assert bot.prompts[6] == ["d"]


async def test_settings_are_chosen_by_buttons_and_reach_the_engine(bot_of):
    async with bot_of(max_new_tokens=512) as bot:
        alice = Person(bot.api)
        menu = await answered(alice, "/settings")
        for button in ("choose:temperature:0.8", "choose:top_p:0.8", "choose:length:256"):
            before = menu.buttons
            await alice.noticed(alice.presses(menu, button))
            await until(bot.api, lambda b=before: menu.buttons != b, "a changed menu")
        assert any("0.8" in text for text, _ in menu.buttons)
        await answered(alice, "x")
        request = bot.engine.asked[-1]
        assert request.parameters == {"temperature": 0.8, "top_p": 0.8}
        assert request.max_new_tokens == 256
        alice.presses(menu, "choose:mode:chat")
        await until(bot.api, lambda: "choose:mode:continue" in str(menu.buttons), "the other mode")
        await answered(alice, "y")
        assert bot.prompts[-1] == ["y"]
        alice.presses(menu, "Defaults")
        await until(bot.api, lambda: "choose:mode:chat" in str(menu.buttons), "the first mode")
        await answered(alice, "z")
        assert (bot.prompts[-1], bot.engine.asked[-1].parameters) == ("z", {})


@pytest.mark.parametrize(
    "data",
    ["choose:temperature:inf", "choose:length:1000000", "choose:mode:evil", "choose:x:1", "again:99",
     "vote:99:1", "again:1", "vote:1:7"],
)  # fmt: skip
async def test_buttons_that_nobody_was_given_do_nothing(bot_of, data):
    async with bot_of() as bot:
        alice, mallory = Person(bot.api), Person(bot.api, "Mallory")
        await answered(alice, "secret")
        menu = await answered(mallory, "/settings")
        menu.markup["inline_keyboard"][0][0]["callback_data"] = data
        await mallory.noticed(mallory.presses(menu, data))
        await answered(mallory, "x")
        assert bot.prompts == ["secret", "x"]
        assert bot.engine.asked[-1].parameters == {}
        assert bot.engine.asked[-1].max_new_tokens == 512


async def test_a_vote_is_shown_and_can_be_taken_back(bot_of):
    async with bot_of() as bot:
        alice = Person(bot.api)
        answer = await answered(alice, "Once")
        for button, shown in (("👍", "👍 ✓"), ("👎", "👎 ✓"), ("👎 ✓", "👎")):
            await alice.noticed(alice.presses(answer, button))
            await until(
                bot.api, lambda s=shown: s in dict(answer.buttons), lambda: str(answer.buttons)
            )
        assert [text for text, _ in answer.buttons] == ["🔁 Repeat", "👍", "👎"]


async def test_a_budget_ends_and_admins_see_what_happens(bot_of):
    async with bot_of(daily_tokens=5) as bot:
        alice, admin = Person(bot.api), Person(bot.api, id_=31)
        for n, new in enumerate((5, 3, 1)):
            await answered(alice, f"x{n}")
            assert bot.engine.asked[-1].max_new_tokens == new
        alice.says("x")
        await alice.chat.gets("used up")
        alice.says("/model")
        assert "today: 0" in (await alice.chat.gets("Mode")).text
        assert len(bot.prompts) == 3
        admin.says("/stats")
        assert "tokens: 6" in (await admin.chat.gets("answers: 3")).text
        alice.says("/stats")
        await alice.chat.gets("do not know")


async def test_a_conversation_comes_as_a_file(bot_of):
    async with bot_of("trained") as bot:
        alice = Person(bot.api)
        alice.says("/export")
        await alice.chat.gets("nothing")
        await answered(alice, "привет")
        alice.says("/export")
        document = await alice.chat.gets(lambda m: m.document)
        assert json.loads(document.content) == {
            "messages": [
                {"role": "user", "content": "привет"}, {"role": "assistant", "content": " 1"},
            ]
        }  # fmt: skip


async def test_what_continue_asked_for_is_no_turn_of_the_file(bot_of):
    async with bot_of("trained") as bot:
        alice = Person(bot.api)
        await answered(alice, "a")
        await answered(alice, "/continue")
        await answered(alice, "b")
        alice.says("/export")
        document = await alice.chat.gets(lambda m: m.document)
        turns = json.loads(document.content)["messages"]
        assert [turn["content"] for turn in turns] == ["a", " 1 2", "b", " 3"]


@pytest.mark.parametrize(("language", "words"), [("en", "too long"), ("ru", "слишком длинный")])
async def test_a_text_longer_than_the_context_is_told_so(bot_of, language, words):
    async with bot_of("trained") as bot:
        alice = Person(bot.api, language=language)
        alice.says("long")
        assert "/new" not in (await alice.chat.gets(words)).text


async def test_an_inline_query_is_answered_once_typing_has_ended(bot_of):
    async with bot_of(inline=True, draft_seconds=0.5) as bot:
        alice = Person(bot.api)
        await answered(alice, "before")  # the bot has said which updates it wants
        queries = [alice.asks_inline("Once"[:n]) for n in range(1, 5)]
        (found,) = (await alice.noticed(queries[-1]))["results"]
        assert found["input_message_content"]["message_text"] == "Once 2"
        assert bot.prompts == ["before", "Once"]
        assert (await alice.noticed(alice.asks_inline("  ")))["results"] == []


async def test_an_inline_query_that_fails_ends_nothing(bot_of):
    async with bot_of(inline=True) as bot:
        alice = Person(bot.api)
        alice.asks_inline("bug")
        await until(bot.api, lambda: bot.prompts == ["bug"], "a request")
        assert (await answered(alice, "x")).text == "x 2"


async def test_an_engine_that_says_nothing_is_left(bot_of):
    async with bot_of(engine_seconds=0.2) as bot:
        alice = Person(bot.api)
        alice.says("hang")
        await alice.chat.gets("nothing for too long")
        await answered(alice, "x")


async def test_an_update_that_was_lost_is_told(bot_of):
    bot = bot_of()
    async with Store.open(Path(bot.settings["state"])) as store:
        await store.take(1, 1001, "ru")
        await store.take(2, 1002, "en")
        await store.done(2)
    async with bot:
        alice, bob = Person(bot.api, id_=1001), Person(bot.api, id_=1002)
        await until(bot.api, lambda: bot.api.calls_of("sendMessage", chat=1001), "a notice")
        await answered(bob, "x")
        await answered(alice, "x")
        assert len(bob.chat.answers) == 1
        bot.stopping.set()
        await bot.serving
        await bot.serve()
        await answered(bob, "y")
        told = [c.parameters["text"] for c in bot.api.calls_of("sendMessage", chat=1001)]
        assert sum("Отправьте" in text for text in told) == 1


async def test_strangers_get_neither_answers_nor_inline_results(bot_of):
    async with bot_of(public=False, inline=True) as bot:
        admin, stranger = Person(bot.api, id_=31), Person(bot.api)
        menu = await answered(admin, "/settings")
        assert (await stranger.noticed(stranger.asks_inline("Once")))["results"] == []
        await stranger.noticed(stranger.presses(menu, "choose:temperature:0.8", place=admin.chat))
        await answered(admin, "x")
        assert bot.engine.asked[-1].parameters == {}


async def test_a_long_answer_in_a_group_is_edits_and_further_messages(bot_of):
    async with bot_of("trained") as bot:
        alice, group = Person(bot.api), Group(bot.api)
        text = " ".join(f"word{n}" for n in range(1500))
        last = await answered(alice, f"@fst_bot say:{text}", place=group)
        first, *_ = group.answers
        assert len(group.answers) == 4
        assert first.reply_to is not None
        assert last is group.answers[-1]
        assert "".join(c.parameters["text"] for c in _last_calls(bot.api, group)) == text


def _last_calls(api, group):
    """Return the call that made each message of a group what it is."""
    sent = [c for c in api.calls_of("sendMessage", chat=group.id) if c.status == 200]
    made = {c.answer["message_id"]: c for c in sent}
    for call in api.calls_of("editMessageText", chat=group.id):
        made[call.parameters["message_id"]] = call
    return [made[number] for number in sorted(made)]


async def test_a_server_without_drafts_gets_edits(bot_of):
    async with bot_of() as bot:
        bot.api.refuse("sendMessageDraft", status=404, description="Not Found", times=10**6)
        alice = Person(bot.api)
        text = "word " * 700
        await answered(alice, f"say:{text}")
        shown = "".join(m.text for m in alice.chat.answers)
        assert shown.count("word") == 1400  # the prompt and the answer
        assert bot.api.calls_of("editMessageText", chat=alice.id)
        assert len(bot.api.calls_of("sendMessageDraft", chat=alice.id)) == 1


async def test_the_language_is_the_persons(bot_of):
    async with bot_of() as bot:
        alice, boris = Person(bot.api), Person(bot.api, "Boris", language="ru")
        alice.says("/help")
        boris.says("/help")
        await alice.chat.gets("beginning of a text")
        await boris.chat.gets("начало текста")
        await until(bot.api, lambda: {"", "ru"} <= set(bot.api.commands), "both menus")


async def test_a_message_that_is_no_text_is_told_so_in_private(bot_of):
    async with bot_of() as bot:
        alice, group = Person(bot.api), Group(bot.api)
        voice = {"file_id": "a", "file_unique_id": "b", "duration": 1}
        for n, chat in enumerate((alice.chat, group)):
            head = {"message_id": 900 + n, "date": 1_790_000_000, "chat": chat.described()}
            bot.api.tell("message", {**head, "from": alice.user, "voice": voice})
        await alice.chat.gets("texts only")
        await answered(alice, "x")
        assert group.answers == []


async def test_an_answer_stays_in_its_topic(bot_of):
    async with bot_of() as bot:
        alice = Person(bot.api)
        said = {
            "message_id": 900, "date": 1_790_000_000, "chat": alice.chat.described(), "text": "Once",
            "from": alice.user, "message_thread_id": 7, "is_topic_message": True,
        }  # fmt: skip
        bot.api.tell("message", said)
        await alice.chat.gets("Once 1")
        calls = bot.api.calls_of("sendMessage", "sendMessageDraft", chat=alice.id)
        assert {c.parameters["message_thread_id"] for c in calls} == {7}


async def test_a_second_start_goes_on_where_the_first_ended(bot_of):
    bot = bot_of()
    async with bot:
        alice = Person(bot.api)
        await answered(alice, "x")
        bot.stopping.set()
        await bot.serving
        await bot.serve()
        assert (await answered(alice, "/continue")).text == "2"
