"""The parts of the frontend `telegram`: splitting, formatting, memory, secrets, texts, pace, settings."""

from __future__ import annotations

import asyncio
import gettext
import json
import random
import re
import sqlite3
import stat
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fst_telegram
import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    AiogramError,
    TelegramBadRequest,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramRetryAfter,
)
from aiogram.methods import GetMe, SendMessage
from aiogram.types import Chat, Message, MessageEntity, User
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from click.testing import CliRunner
from fst_telegram.access import Seldom, meant
from fst_telegram.bot import TelegramFrontend
from fst_telegram.command import command
from fst_telegram.credentials import CleanErrors
from fst_telegram.formatting import pieces
from fst_telegram.outbox import ChatGone, Outbox
from fst_telegram.polling import poll
from fst_telegram.prompts import conversation, shortened
from fst_telegram.settings import TelegramSettings
from fst_telegram.split import LIMIT, split, units
from fst_telegram.store import Answer, Store
from pydantic import ValidationError

from fst_core import Message as Turn
from fst_core.errors import UserError
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing.echo import EchoEngine

TOKEN = "42:AAscrambled_token-of_nobody"
ALPHABET = [
    "word ",
    "ёлка ",
    "\n",
    "\n\n",
    "\U0001f43b",
    "```\n",
    "```python\nx = 1\n",
    "x" * 30,
    " ",
]


def cut(text, limit=LIMIT):
    return [text[start:end] for start, end in split(text, limit)]


# splitting


@pytest.mark.parametrize("seed", range(40))
def test_pieces_together_are_the_text_and_none_is_too_long(seed):
    chance = random.Random(seed)
    text = "".join(chance.choices(ALPHABET, k=300))
    limit = chance.choice([40, 100, 1000, LIMIT])
    found = cut(text, limit)
    assert "".join(found) == text
    assert all(units(piece) <= limit for piece in found)
    assert all(piece for piece in found)


def test_a_text_that_fits_is_one_piece():
    assert cut("") == [""]
    assert cut("\U0001f43b" * 2000) == ["\U0001f43b" * 2000]
    assert [units(p) for p in cut("\U0001f43b" * 2001)] == [4000, 2]


def test_a_block_of_code_stays_whole_if_a_message_holds_it():
    block = "```python\n" + "x = 1\n" * 10 + "```\n"
    found = cut(("line of words\n" * 3 + block) * 20, 200)
    assert all(piece.count("```") % 2 == 0 for piece in found)
    assert sum(piece.count(block.rstrip()) for piece in found) == 20


def test_a_block_that_no_message_holds_is_cut_at_a_line():
    found = cut("```\n" + "x = 1\n" * 100 + "```", 200)
    assert all(piece.endswith("\n") for piece in found[:-1])
    assert len(found) == 4


def test_a_cut_prefers_a_lines_end_then_a_space():
    assert cut("a" * 30 + "\n" + "b " * 15, 50)[0] == "a" * 30 + "\n"
    assert cut("a" * 30 + " " + "b" * 50, 50)[0] == "a" * 30 + " "
    assert cut("a" * 90, 50) == ["a" * 50, "a" * 40]


def test_what_follows_changes_no_piece_that_is_full():
    text = ("line of words, ёлка \U0001f43b\n" * 7 + "```python\nx = 1\n```\n") * 12
    whole = cut(text, 300)
    for length in range(0, len(text), 37):
        found = cut(text[:length], 300)
        assert found[:-1] == whole[: len(found) - 1]


# formatting


def test_a_prompt_is_bold_and_code_is_code_in_units_of_utf_16():
    (piece,) = pieces("\U0001f43b says", " hi\n```python\nx\n```\nbye", "Stopped.")
    assert piece.text == "\U0001f43b says hi\n```python\nx\n```\nbye\n\nStopped."
    found = [(e.type, e.extract_from(piece.text), e.language) for e in piece.entities]
    assert found == [
        ("bold", "\U0001f43b says", None), ("pre", "```python\nx\n```", "python"),
        ("italic", "\n\nStopped.", None),
    ]  # fmt: skip


def test_markup_is_left_as_it_is():
    text = "_*[]()~`>#+-=|{}.! <b>bold <i & **"
    (piece,) = pieces("", text)
    assert (piece.text, piece.entities) == (text, ())


def test_entities_go_with_their_piece():
    found = pieces("", "```\n" + "x = 1\n" * 1000 + "```\nend")
    assert len(found) == 2
    for piece in found:
        (entity,) = piece.entities
        assert entity.type == "pre"
        assert entity.offset == 0
    assert found[1].text.endswith("```\nend")
    assert found[1].entities[0].length == units(found[1].text) - units("\nend")


# prompts


async def test_a_conversation_leaves_its_oldest_turns_out():
    turns = tuple(
        Turn("user" if n % 2 == 0 else "assistant", letter * 300)
        for n, letter in enumerate("abcde")
    )

    class Counting(EchoEngine):
        async def encode(self, prompt):
            return tuple(range(len("".join(m.content for m in prompt))))

    assert await shortened(Counting(), turns, 100) == turns[2:]
    assert await shortened(Counting(), turns[-1:], 2000) == turns[-1:]


async def test_a_text_keeps_its_end_when_it_is_too_long():
    kept = await shortened(EchoEngine(), "a" * 1000 + "b" * 100, 256)
    assert bytes(kept) == b"a" * (1024 - 256 - 100) + b"b" * 100
    assert await shortened(EchoEngine(), "short", 256) == "short"


def test_only_turns_of_chat_mode_are_a_conversation():
    turn = Answer(1, 5, None, 5, "en", None, "chat", 1, 1, "a", goes_on=False, text="b")
    found = conversation([turn, replace(turn, mode="continue")], "c")
    assert [(m.role, m.content) for m in found] == [
        ("user", "a"), ("assistant", "b"), ("user", "c")
    ]  # fmt: skip


# the store

ASKED = Answer(0, 5, None, 5, "en", 9, "chat", 1, 0, "hello", goes_on=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.sqlite3"


async def test_an_update_is_taken_once_and_a_lost_one_is_known(path):
    async with Store.open(path) as store:
        assert await store.take(7, 5, "ru")
        assert not await store.take(7, 5, "ru")
        assert await store.take(8, 6, "en")
        await store.done(8)
        assert await store.take(9, None, "")
    async with Store.open(path) as store:
        assert not await store.take(8, 6, "en")
        assert await store.lost() == {5: "ru"}
        await store.told(5)
        assert await store.lost() == {}


async def test_old_updates_are_forgotten(path, monkeypatch):
    monkeypatch.setattr("fst_telegram.store._KEPT", 500)
    async with Store.open(path) as store:
        for n in range(2001):
            await store.take(n, 5, "en")
        (row,) = await store._rows("SELECT COUNT(*) AS n, MIN(id) AS least FROM updates")
        assert (row["n"], row["least"]) == (501, 1500)


async def test_answers_survive_and_interrupted_ones_are_known(path):
    async with Store.open(path) as store:
        first = await store.begin(ASKED)
        await store.save(first.id, "hi")
        await store.finish(first.id, "done")
        second = await store.begin(replace(ASKED, prompt="more"))
        assert (first.turn, second.turn) == (1, 2)
    async with Store.open(path) as store:
        assert [a.id for a in await store.interrupted()] == [second.id]
        await store.interrupted_told(5, second.id)
        assert await store.interrupted() == []
        assert [(a.prompt, a.text) for a in await store.turns(5, 1)] == [("hello", "hi")]
        assert (await store.answer(5)).prompt == "more"
        assert await store.answer(6, first.id) is None  # of another chat


async def test_an_answer_again_takes_the_place_of_the_first(path):
    async with Store.open(path) as store:
        for text in ("one", "two"):
            answer = await store.begin(replace(ASKED, turn=1 if text == "two" else 0))
            await store.save(answer.id, text)
        assert [a.text for a in await store.turns(5, 1)] == ["two"]
        assert await store.turns(5, 1, before=1) == []


async def test_a_supergroup_has_what_the_group_had(path):
    async with Store.open(path) as store:
        await store.set_chat(-5, {"temperature": 0.5}, new=True)
        await store.begin(replace(ASKED, chat=-5, conversation=2))
        await store.move(-5, -100)
        await store.move(-5, -100)
        assert await store.chat(-100) == (2, {"temperature": 0.5})
        assert await store.chat(-5) == (1, {})
        assert (await store.answer(-100)).prompt == "hello"


async def test_what_is_spent_adds_up_and_ends_with_the_day(path, monkeypatch):
    async with Store.open(path) as store:
        await store.spend(5, 10)
        await store.spend(5, 5)
        assert (await store.spent(5), await store.spent(6)) == (15, 0)
        monkeypatch.setattr("fst_telegram.store._today", lambda: "2100-01-01")
        assert await store.spent(5) == 0


async def test_the_state_is_its_owners_and_foreign_files_are_refused(path, tmp_path):
    async with Store.open(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    (tmp_path / "text").write_text("no database" * 100)
    for place, told in ((path, "newer version"), (tmp_path / "text", "not a database")):
        with pytest.raises(UserError, match=told):
            async with Store.open(place):
                pass


# export


async def _liked(path):
    """Fill a store: two conversations, one with an answer again, and texts; return what is exported."""
    async with Store.open(path) as store:

        async def said(prompt, text, vote=0, **fields):
            answer = await store.begin(replace(ASKED, prompt=prompt, **fields))
            await store.save(answer.id, text)
            await store.vote(answer.id, vote)

        await said("a", "liked too early")
        await said("a", "good", 1, turn=1)
        await said("a", "worse, but later", turn=1)
        await said("b", "fine", 1)
        await said("Go on.", "and more", 1, goes_on=True)
        await said("c", "not liked")
        await said("d", "bad", -1, conversation=2)
        await said("e", "good after bad", 1, conversation=2)
        await said("Once ", "upon a time", 1, mode="continue", conversation=3)
        await said("Never ", "liked", -1, mode="continue", conversation=3)


async def test_liked_conversations_are_read_by_jsonl(path, tmp_path):
    await _liked(path)
    done = CliRunner().invoke(command, ["export", str(path), str(tmp_path / "liked.jsonl")])
    assert done.exit_code == 0, done.output
    assert "2 liked" in done.stderr
    offer = registry().find("reader", "jsonl")
    settings = validate(offer.settings_class(), {"train": str(tmp_path / "liked.jsonl")})
    chat, text = offer.build(settings).read("train")
    assert [(m.role, m.content) for m in chat.messages] == [
        ("user", "a"), ("assistant", "good"), ("user", "b"), ("assistant", "fine and more"),
    ]  # fmt: skip
    assert text.text == "Once upon a time"
    assert sorted(p.name for p in tmp_path.glob("*liked*")) == ["liked.jsonl"]


def test_an_export_of_nothing_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "text").write_text("no database" * 100)
    for state in ("missing", "text"):
        done = CliRunner().invoke(command, ["export", str(tmp_path / state), str(tmp_path / "out")])
        assert isinstance(done.exception, UserError)
        assert state in str(done.exception)
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


# secrets and settings


def settings_of(**values):
    return validate(TelegramSettings, {"state": "s.sqlite3", **values})


@pytest.mark.parametrize("token", ["", "no-token", "abc:def", "4 2:x"])
def test_a_missing_or_wrong_token_is_told_by_its_variable(monkeypatch, token):
    monkeypatch.setenv("FST_UNIT_TOKEN", token)
    with pytest.raises(UserError) as raised:
        TelegramFrontend(settings_of(token_env="FST_UNIT_TOKEN"))
    assert "FST_UNIT_TOKEN" in str(raised.value)
    assert not token or token not in str(raised.value)


def test_a_token_may_be_in_a_file(tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert TelegramFrontend(settings_of(token_file=str(tmp_path / "token")))
    with pytest.raises(UserError, match="nowhere"):
        TelegramFrontend(settings_of(token_file=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("secret", ["", "short", "with a space in it", "ü" * 20, "x" * 257])
def test_a_webhook_needs_a_secret(monkeypatch, secret):
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    monkeypatch.setenv("HOOK", secret)
    hook = {"url": "https://example.org/telegram", "secret_env": "HOOK"}
    with pytest.raises(UserError, match="HOOK"):
        TelegramFrontend(settings_of(webhook=hook))


def test_a_length_above_its_bound_is_refused():
    with pytest.raises(ValidationError, match="max_new_tokens_bound"):
        settings_of(max_new_tokens=10, max_new_tokens_bound=9)


async def test_errors_do_not_hold_the_token():
    session = AiohttpSession(api=TelegramAPIServer.from_base("http://127.0.0.1:1"))
    session.middleware(CleanErrors())
    bot = Bot(TOKEN, session=session)

    async def fails(bot, method, timeout=None):
        url = session.api.api_url(bot.token, "getMe")
        raise TelegramNetworkError(method, f"cannot connect to {url}") from OSError(url)

    session.make_request = fails
    with pytest.raises(AiogramError) as raised:
        await bot(GetMe())
    assert "TOKEN/getMe" in str(raised.value)
    shown = "".join(traceback.format_exception(raised.value))
    assert TOKEN not in shown + repr(raised.value.args)


# who may, and what is meant for the bot

ME = User(id=42, is_bot=True, first_name="FST", username="fst_bot")


def message(text, kind="group", reply_to=None, **entity):
    entities = [MessageEntity(**entity)] if entity else None
    replied = None
    if reply_to is not None:
        replied = message("before").model_copy(update={"from_user": reply_to})
    return Message(
        message_id=1, date=0, chat=Chat(id=-5, type=kind), text=text, entities=entities,
        from_user=User(id=7, is_bot=False, first_name="A"), reply_to_message=replied,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (message("hello"), None),
        (message("hello", "private"), "hello"),
        (message("hello", "channel"), None),
        (message("@fst_bot hello", type="mention", offset=0, length=8), "hello"),
        (message("hello, @FST_Bot", type="mention", offset=7, length=8), "hello,"),
        (message("@fst_bots hello", type="mention", offset=0, length=9), None),
        (message("@fst_bot hello"), None),
        (message("FST hello", type="text_mention", offset=0, length=3, user=ME), "hello"),
        (message("hello", reply_to=ME), "hello"),
        (message("hello", reply_to=User(id=8, is_bot=True, first_name="B")), None),
        (message("/help"), "/help"),
        (message("/help@fst_bot"), "/help@fst_bot"),
        (message("/help@other_bot"), None),
    ],
)
def test_a_group_must_mean_the_bot(said, expected):
    assert meant(said, ME) == expected


async def test_something_is_said_seldom_and_memory_is_bounded():
    seldom = Seldom(1000.0)
    assert [seldom("a"), seldom("a"), seldom("b")] == [True, False, True]
    for n in range(20_000):
        seldom(n)
    assert len(seldom._said) == 10_000


# the outbox


class Scripted:
    """A bot whose calls fail as told, and which notes them."""

    def __init__(self, *failures):
        self.failures, self.calls = list(failures), []

    async def __call__(self, method):
        self.calls.append((asyncio.get_running_loop().time(), method))
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        return True


CALL = SendMessage(chat_id=5, text="hi", entities=[MessageEntity(type="bold", offset=0, length=2)])


@asynccontextmanager
async def outbox_of(*failures, **settings):
    bot, moved = Scripted(*failures), []

    async def note(old, new):
        moved.append((old, new))

    box = Outbox(bot, settings_of(draft_seconds=0.05, edit_seconds=0.05, **settings), note)
    box.bot, box.moved_ = bot, moved
    yield box


async def test_a_chat_that_refuses_is_left_alone_and_others_are_not():
    async with outbox_of(TelegramRetryAfter(CALL, "Too Many Requests", 1)) as box:
        began = asyncio.get_running_loop().time()
        kept = asyncio.create_task(box.send(5, lambda: CALL))
        await asyncio.sleep(0)
        await box.send(6, lambda: CALL.model_copy(update={"chat_id": 6}))
        assert await kept
        first, other, again = [(at - began, m.chat_id) for at, m in box.bot.calls]
        assert (first[1], other[1], again[1]) == (5, 6, 5)
        assert other[0] < 1 <= again[0]


async def test_what_need_not_be_kept_is_let_go_with_the_newest_text_next():
    async with outbox_of(TelegramRetryAfter(CALL, "Too Many Requests", 1)) as box:
        assert await box.send(5, lambda: CALL, keep=False) is None
        assert box.refuses(5)
        assert await box.send(5, lambda: None) is None
        assert len(box.bot.calls) == 1


async def test_entities_that_are_refused_are_left_out_once():
    refused = TelegramBadRequest(CALL, "Bad Request: can't parse entities: byte offset 0")
    async with outbox_of(refused) as box:
        assert await box.send(5, lambda: CALL)
        assert [m.entities for _, m in box.bot.calls] == [CALL.entities, None]
    async with outbox_of(refused, refused) as box:
        with pytest.raises(TelegramBadRequest):
            await box.send(5, lambda: CALL)
        assert len(box.bot.calls) == 2


@pytest.mark.parametrize(
    "error",
    [
        TelegramForbiddenError(CALL, "Forbidden: bot was blocked by the user"),
        TelegramBadRequest(CALL, "Bad Request: chat not found"),
        TelegramBadRequest(
            CALL, "Bad Request: not enough rights to send text messages to the chat"
        ),
    ],
)
async def test_a_chat_that_is_gone_is_called_once(error):
    async with outbox_of(error) as box:
        with pytest.raises(ChatGone):
            await box.send(5, lambda: CALL)
        assert len(box.bot.calls) == 1


async def test_an_edit_that_changes_nothing_has_succeeded():
    async with outbox_of(TelegramBadRequest(CALL, "Bad Request: message is not modified")) as box:
        assert await box.send(5, lambda: CALL) is True


async def test_a_network_that_fails_is_tried_again():
    async with outbox_of(TelegramNetworkError(CALL, "reset")) as box:
        assert await box.send(5, lambda: CALL)
        assert len(box.bot.calls) == 2


async def test_a_group_that_moved_is_followed():
    async with outbox_of(TelegramMigrateToChat(CALL, "upgraded", -100)) as box:
        assert await box.send(5, lambda: CALL)
        assert await box.send(5, lambda: CALL)
        assert [m.chat_id for _, m in box.bot.calls] == [5, -100, -100] or box.moved_ == [(5, -100)]


async def test_calls_to_a_chat_keep_their_distance_and_order():
    async with outbox_of() as box:
        calls = [CALL.model_copy(update={"text": str(n)}) for n in range(4)]
        await asyncio.gather(*(box.send(5, lambda call=call: call) for call in calls))
        assert [m.text for _, m in box.bot.calls] == ["0", "1", "2", "3"]
        times = [at for at, _ in box.bot.calls]
        assert all(b - a >= 0.049 for a, b in pairwise(times))


async def test_a_token_that_telegram_does_not_know_ends_the_bot():
    from aiogram.exceptions import TelegramUnauthorizedError

    class Unknown(Scripted):
        async def __call__(self, method, request_timeout=None):
            raise TelegramUnauthorizedError(method, "Unauthorized")

    with pytest.raises(UserError, match="does not know this token"):
        await poll(Unknown(), None, [], asyncio.Event())


# texts

PACKAGE = Path(fst_telegram.__file__).parent
RUSSIAN = PACKAGE / "locales/ru/LC_MESSAGES"


def test_every_text_is_translated_with_its_fields_and_compiled():
    with (RUSSIAN / "messages.po").open("rb") as file:
        catalog = read_po(file)
    said = {message for _, _, message, _, _ in extract_from_dir(str(PACKAGE))}
    assert {m.id for m in catalog if m.id} == said
    for found in catalog:
        if found.id:
            assert found.string
            assert not found.fuzzy
            assert set(re.findall(r"\{\w+\}", found.string)) == set(
                re.findall(r"\{\w+\}", found.id)
            )
            assert set(re.findall(r"/\w+", found.string)) >= set(re.findall(r"/\w+", found.id))
    with (RUSSIAN / "messages.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    assert {m.id: m.string for m in catalog if m.id} == {i: compiled.gettext(i) for i in said}


def test_json_of_the_settings_has_no_secret(monkeypatch):
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    frontend = TelegramFrontend(settings_of())
    assert TOKEN not in json.dumps(frontend.settings.model_dump(mode="json")) + repr(frontend)
