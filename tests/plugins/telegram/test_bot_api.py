"""The fake Bot API keeps the rules that bots must obey; aiogram's Bot is the one that calls it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramBadRequest,
    TelegramConflictError,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.types import (
    BotCommand,
    BufferedInputFile,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InlineQueryResultArticle,
    InputTextMessageContent,
    MessageEntity,
    ReplyParameters,
)
from aiohttp import ClientSession, web
from bot_api import BotApi, Clock
from bot_api_limits import Limits
from people import Group, Person, call_plainly, until

TOKEN = "42:AAscrambled-Token_of_nobody"
FREELY = Limits(burst=1000, group_minute=1000, bot_second=1000)


@asynccontextmanager
async def serving(scale=1.0, limits=FREELY, token=TOKEN):
    """The server, and a bot of aiogram that calls it."""
    async with BotApi(TOKEN, clock=Clock(scale), limits=limits) as api:
        session = AiohttpSession(api=TelegramAPIServer.from_base(api.url))
        bot = Bot(token, session)
        try:
            yield api, bot
        finally:
            if session._session is not None:
                await session._session.close()  # its own `close` waits a quarter of a second
        assert api.faults == []


def keyboard(**buttons):
    row = [InlineKeyboardButton(text=text, callback_data=data) for text, data in buttons.items()]
    return InlineKeyboardMarkup(inline_keyboard=[row])


# the token, methods, parameters


async def test_a_bot_is_known_by_its_token():
    async with serving() as (_, bot):
        me = await bot.get_me()
        assert (me.id, me.username, me.is_bot) == (42, "fst_bot", True)
    async with serving(token="42:AAwrong-Token") as (_, bot):
        with pytest.raises(TelegramUnauthorizedError, match="Unauthorized"):
            await bot.get_me()


async def test_methods_are_known_in_any_case_and_others_are_not_found():
    async with serving() as (api, _):
        assert (await call_plainly(api, "GETME"))[0] == 200
        status, said = await call_plainly(api, "sendPigeon")
        assert (status, said["ok"], said["error_code"]) == (404, False, 404)
        assert (await call_plainly(api, "getMe", token="nonsense"))[0] == 404


async def test_a_parameter_of_a_wrong_type_is_refused():
    async with serving() as (api, _):
        alice = Person(api)
        status, said = await call_plainly(
            api, "sendMessage", chat_id=alice.id, text="a", entities=[{"type": "bold"}]
        )
        assert status == 400
        assert said["description"].startswith("Bad Request: can't parse entities")
        assert api.calls[-1].status == 400


async def test_every_call_is_kept_with_its_time_and_what_it_was_answered():
    async with serving() as (api, bot):
        alice = Person(api)
        await bot.send_message(alice.id, "a")
        with pytest.raises(TelegramBadRequest):
            await bot.send_message(12345, "b")
        good, wrong = api.calls_of("sendMessage")
        assert (good.chat, good.status, good.parameters["text"]) == (alice.id, 200, "a")
        assert (wrong.status, wrong.answer) == (400, "Bad Request: chat not found")
        assert good.at < wrong.at <= api.now()
        assert api.calls_of(chat=alice.id) == [good]


# updates


async def test_an_update_comes_again_until_an_offset_confirms_it():
    async with serving() as (api, bot):
        alice = Person(api, language="ru")
        alice.says("/start now")
        (update,) = await bot.get_updates()
        assert (update.message.text, update.message.from_user.language_code) == ("/start now", "ru")
        assert update.message.entities[0].type == "bot_command"
        assert update.message.chat.type == "private"
        assert [u.update_id for u in await bot.get_updates()] == [update.update_id]
        assert await bot.get_updates(offset=update.update_id + 1) == []
        assert await bot.get_updates() == []
        assert api.confirmed == update.update_id + 1


async def test_updates_come_in_order_as_many_as_were_asked_for():
    async with serving() as (api, bot):
        alice = Person(api)
        ids = [alice.says(str(n)).update for n in range(5)]
        assert [u.update_id for u in await bot.get_updates(limit=2)] == ids[:2]
        assert [u.update_id for u in await bot.get_updates(offset=ids[3])] == ids[3:]
        assert [u.update_id for u in await bot.get_updates(offset=-1)] == ids[4:]


async def test_a_long_poll_waits_for_an_update_or_its_end():
    async with serving(scale=10) as (api, bot):
        alice = Person(api)
        before = time.monotonic()
        assert await bot.get_updates(timeout=4) == []
        assert time.monotonic() - before >= 0.4
        waiting = asyncio.create_task(bot.get_updates(timeout=500))
        await until(api, lambda: len(api.calls_of("getUpdates")) == 2, "a poll")
        alice.says("now")
        assert [u.message.text for u in await waiting] == ["now"]


async def test_two_who_ask_for_updates_are_in_conflict():
    async with serving() as (api, bot):
        first = asyncio.create_task(bot.get_updates(timeout=50))
        await until(api, lambda: api.calls_of("getUpdates"), "a poll")
        assert await bot.get_updates() == []
        with pytest.raises(TelegramConflictError, match="only one bot instance"):
            await first


async def test_a_client_that_is_gone_loses_no_update():
    async with serving() as (api, bot):
        alice = Person(api)
        waiting = asyncio.create_task(bot.get_updates(timeout=50))
        await until(api, lambda: api.calls_of("getUpdates"), "a poll")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        alice.says("still there")
        assert [u.message.text for u in await bot.get_updates()] == ["still there"]


async def test_only_updates_that_are_allowed_are_kept():
    async with serving() as (api, bot):
        alice = Person(api)
        await bot.get_updates(allowed_updates=["callback_query"])
        alice.says("a")
        assert await bot.get_updates() == []
        await bot.get_updates(allowed_updates=[])
        alice.says("b")
        assert [u.message.text for u in await bot.get_updates()] == ["b"]


async def test_a_webhook_gets_updates_with_its_secret_until_it_takes_them():
    got, answers = [], [500, 503]

    async def receive(request):
        got.append(
            (request.path, request.headers["X-Telegram-Bot-Api-Secret-Token"], await request.json())
        )
        return web.Response(status=answers.pop(0) if answers else 200)

    app = web.Application()
    app.router.add_post("/bot", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with serving(scale=50) as (api, bot):
        alice = Person(api)
        with pytest.raises(TelegramBadRequest, match="HTTPS URL must be provided"):
            await bot.set_webhook("http://bots.example/bot")
        with pytest.raises(TelegramBadRequest, match="unallowed characters"):
            await bot.set_webhook("https://bots.example/bot", secret_token="a b")
        api.proxy = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await bot.set_webhook("https://bots.example/bot", secret_token="s3cret")
        alice.says("one")
        alice.says("two")
        await until(api, lambda: len(got) == 4, lambda: f"4 deliveries, not {got}")
        assert [update["message"]["text"] for _, _, update in got] == ["one", "one", "one", "two"]
        assert {(path, secret) for path, secret, _ in got} == {("/bot", "s3cret")}
        with pytest.raises(TelegramConflictError, match="webhook is active"):
            await bot.get_updates()
        await bot.delete_webhook()
        await until(api, lambda: not api.updates, "the last one is taken")
        assert await bot.get_updates() == []
    await runner.cleanup()


# texts


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a" * 4096, None),
        ("\N{GRINNING FACE}" * 2048, None),
        ("a" * 4097, "message is too long"),
        ("\N{GRINNING FACE}" * 2048 + "a", "message is too long"),
        (" \n ", "message text is empty"),
        ("", "message text is empty"),
    ],
)
async def test_a_text_has_1_to_4096_units(text, error):
    async with serving() as (api, bot):
        alice = Person(api)
        if error is None:
            assert (await bot.send_message(alice.id, text)).text == text
        else:
            with pytest.raises(TelegramBadRequest, match=error):
                await bot.send_message(alice.id, text)
            assert alice.chat.answers == []


async def test_white_space_at_the_ends_falls_away():
    async with serving() as (api, bot):
        alice = Person(api)
        bold = [MessageEntity(type="bold", offset=3, length=3)]
        sent = await bot.send_message(alice.id, "\n  big \n", entities=bold)
        assert sent.text == "big"
        assert [(e.offset, e.length) for e in sent.entities] == [(0, 3)]


@pytest.mark.parametrize(
    ("offset", "length", "error"),
    [
        (0, 2, None),
        (2, 1, None),
        (0, 1, "in a middle of a UTF-16 symbol"),
        (1, 2, "in a middle of a UTF-16 symbol"),
        (2, 2, "offset 2 ends after the end of the text at UTF-16 offset 3"),
        (4, 1, "offset 4 begins after the end of the text at UTF-16 offset 3"),
    ],
)
async def test_entities_lie_within_the_text(offset, length, error):
    async with serving() as (api, bot):
        alice = Person(api)
        entities = [MessageEntity(type="bold", offset=offset, length=length)]
        if error is None:
            sent = await bot.send_message(alice.id, "\N{GRINNING FACE}b", entities=entities)
            assert [(e.type, e.offset, e.length) for e in sent.entities] == [
                ("bold", offset, length)
            ]
        else:
            with pytest.raises(TelegramBadRequest, match=error):
                await bot.send_message(alice.id, "\N{GRINNING FACE}b", entities=entities)


@pytest.mark.parametrize(
    ("mode", "text", "shown"),
    [
        ("MarkdownV2", r"*a* _b_ `c.d` 1\.", "a b c.d 1."),
        ("HTML", "<b>a</b> &lt;i&gt;", "a <i>"),
        ("MarkdownV2", "a.", None),
        ("MarkdownV2", "*a", None),
        ("HTML", "<b>a", None),
        ("HTML", "<b>a</i>", None),
        ("HTML", "1 <x", None),
    ],
)
async def test_markup_that_is_wrong_is_refused(mode, text, shown):
    async with serving() as (api, bot):
        alice = Person(api)
        if shown is not None:
            assert (await bot.send_message(alice.id, text, parse_mode=mode)).text == shown
        else:
            with pytest.raises(TelegramBadRequest, match="can't parse entities"):
                await bot.send_message(alice.id, text, parse_mode=mode)


async def test_an_edit_changes_a_message_or_is_an_error():
    async with serving() as (api, bot):
        alice = Person(api)
        said = alice.says("hi")
        sent = await bot.send_message(alice.id, "one", reply_markup=keyboard(Repeat="again"))
        assert sent.reply_markup.inline_keyboard[0][0].text == "Repeat"
        edited = await bot.edit_message_text("two", chat_id=alice.id, message_id=sent.message_id)
        assert (edited.text, edited.reply_markup) == ("two", None)
        assert alice.chat.last.edits == 1
        for text, id_, error in (
            ("two", sent.message_id, "message is not modified"),
            ("x", 99999, "message to edit not found"),
            ("x", said.id, "message can't be edited"),
            ("x" * 4097, sent.message_id, "MESSAGE_TOO_LONG"),
        ):
            with pytest.raises(TelegramBadRequest, match=error):
                await bot.edit_message_text(text, chat_id=alice.id, message_id=id_)
        buttons = {
            "chat_id": alice.id,
            "message_id": sent.message_id,
            "reply_markup": keyboard(A="a"),
        }
        await bot.edit_message_reply_markup(**buttons)
        assert alice.chat.last.buttons == [("A", "a")]
        with pytest.raises(TelegramBadRequest, match="message is not modified"):
            await bot.edit_message_reply_markup(**buttons)


async def test_a_reply_names_a_message_that_is_there():
    async with serving() as (api, bot):
        alice = Person(api)
        said = alice.says("hi")
        sent = await bot.send_message(
            alice.id, "a", reply_parameters=ReplyParameters(message_id=said.id)
        )
        assert sent.reply_to_message.text == "hi"
        lost = ReplyParameters(message_id=99999)
        with pytest.raises(TelegramBadRequest, match="message to be replied not found"):
            await bot.send_message(alice.id, "b", reply_parameters=lost)


async def test_data_of_a_button_is_short():
    async with serving() as (api, bot):
        alice = Person(api)
        with pytest.raises(TelegramBadRequest, match="BUTTON_DATA_INVALID"):
            await bot.send_message(alice.id, "a", reply_markup=keyboard(A="a" * 65))


async def test_a_file_is_kept_as_it_was_sent():
    async with serving() as (api, bot):
        alice = Person(api)
        file = BufferedInputFile("Ещё\n".encode(), "chat.txt")
        sent = await bot.send_document(alice.id, file, caption="here")
        assert (sent.document.file_name, sent.document.file_size) == ("chat.txt", 7)
        assert alice.chat.last.content.decode() == "Ещё\n"
        document = sent.document.file_id
        url = f"{api.url}/file/bot{TOKEN}/{document}"
        async with ClientSession() as session, session.get(url) as answer:
            assert await answer.text() == "Ещё\n"
        with pytest.raises(TelegramBadRequest, match="non-empty"):
            await bot.send_document(alice.id, BufferedInputFile(b"", "empty.txt"))


# drafts


async def test_a_draft_lives_half_a_minute_or_until_a_message_comes():
    async with serving(scale=60) as (api, bot):
        alice = Person(api)
        await bot.send_message_draft(alice.id, draft_id=7, text="")
        assert alice.chat.draft.text == ""
        await bot.send_message_draft(alice.id, draft_id=7, text="so far", can_stop=True)
        begun = api.now()
        draft = await alice.chat.drafted("so far")
        assert draft.can_stop
        await until(api, lambda: alice.chat.draft is None, "the end of the draft")
        assert 30 <= api.now() - begun < 60
        await bot.send_message_draft(alice.id, draft_id=7, text="again")
        assert alice.chat.draft is not None
        await bot.send_message(alice.id, "whole")
        assert alice.chat.draft is None


async def test_drafts_are_for_private_chats_and_have_a_number():
    async with serving() as (api, bot):
        alice, group = Person(api), Group(api)
        with pytest.raises(TelegramBadRequest, match="TEXTDRAFT_PEER_INVALID"):
            await bot.send_message_draft(group.id, draft_id=7, text="a")
        with pytest.raises(TelegramBadRequest, match="RANDOM_ID_INVALID"):
            await bot.send_message_draft(alice.id, draft_id=0, text="a")
        with pytest.raises(TelegramBadRequest, match="too long"):
            await bot.send_message_draft(alice.id, draft_id=7, text="a" * 4097)


async def test_a_draft_that_was_stopped_grows_no_more_and_the_bot_is_told():
    async with serving() as (api, bot):
        alice = Person(api)
        await bot.send_message_draft(alice.id, draft_id=7, text="so", can_stop=True)
        alice.stops(alice.chat.draft)
        (update,) = await bot.get_updates()
        assert update.stopped_message_generation.draft_id == 7
        assert update.stopped_message_generation.chat.id == alice.id
        await bot.send_message_draft(alice.id, draft_id=7, text="so far", can_stop=True)
        assert alice.chat.draft.text == "so"


# buttons, inline queries, commands


async def test_a_pressed_button_reaches_the_bot_and_is_answered():
    async with serving() as (api, bot):
        alice = Person(api)
        await bot.send_message(alice.id, "a", reply_markup=keyboard(Repeat="again:1"))
        query = alice.presses(alice.chat.last, "Repeat")
        (update,) = await bot.get_updates()
        assert (update.callback_query.data, update.callback_query.message.text) == ("again:1", "a")
        await bot.answer_callback_query(update.callback_query.id, "yes")
        assert (await alice.noticed(query))["text"] == "yes"
        with pytest.raises(TelegramBadRequest, match="query is too old"):
            await bot.answer_callback_query("q1")


async def test_an_inline_query_is_answered():
    async with serving() as (api, bot):
        alice = Person(api)
        query = alice.asks_inline("roses are")
        (update,) = await bot.get_updates()
        assert update.inline_query.query == "roses are"
        content = InputTextMessageContent(message_text="roses are red")
        result = InlineQueryResultArticle(id="1", title="red", input_message_content=content)
        await bot.answer_inline_query(update.inline_query.id, [result], cache_time=0)
        assert (await alice.noticed(query))["results"][0]["title"] == "red"


async def test_commands_are_kept_by_language():
    async with serving() as (api, bot):
        await bot.set_my_commands([BotCommand(command="new", description="a new one")])
        await bot.set_my_commands(
            [BotCommand(command="new", description="новый")], language_code="ru"
        )
        assert api.commands == {"": ["new"], "ru": ["new"]}


# limits


async def test_a_chat_takes_one_message_a_second_after_a_burst():
    async with serving(scale=5, limits=Limits(burst=2)) as (api, bot):
        alice, bob = Person(api), Person(api)
        await bot.send_message(alice.id, "1")
        await bot.send_message_draft(alice.id, draft_id=1, text="2")
        with pytest.raises(TelegramRetryAfter) as refused:
            await bot.send_message(alice.id, "3")
        assert refused.value.retry_after == 1
        await bot.send_message(bob.id, "1")  # other chats are not concerned
        await bot.send_chat_action(alice.id, "typing")  # nor is what sends nothing
        again = api.now() + 1
        await until(api, lambda: api.now() > again, "a second")
        await bot.send_message(alice.id, "3")
        assert api.pace.violations == []


async def test_who_does_not_wait_waits_longer():
    async with serving(limits=Limits(burst=1)) as (api, bot):
        alice = Person(api)
        await bot.send_message(alice.id, "1")
        waits = []
        for _ in range(5):
            with pytest.raises(TelegramRetryAfter) as refused:
                await bot.send_message(alice.id, "2")
            waits.append(refused.value.retry_after)
        assert waits == [1, 4, 16, 64, 256]
        assert [chat for chat, _ in api.pace.violations] == [alice.id] * 4


async def test_a_group_takes_20_messages_a_minute():
    async with serving(limits=Limits(burst=100)) as (api, bot):
        group = Group(api)
        for n in range(20):
            await bot.send_message(group.id, str(n))
        with pytest.raises(TelegramRetryAfter) as refused:
            await bot.edit_message_text("x", chat_id=group.id, message_id=group.last.id)
        assert 50 < refused.value.retry_after <= 60


async def test_a_bot_sends_30_messages_a_second():
    async with serving(limits=Limits(burst=100, slack=0)) as (api, bot):
        people = [Person(api) for _ in range(31)]
        sent = await asyncio.gather(
            *(bot.send_message(p.id, "a") for p in people), return_exceptions=True
        )
        assert [type(s) for s in sent].count(TelegramRetryAfter) == 1


async def test_a_refusal_may_be_ordered():
    async with serving() as (api, bot):
        alice, bob = Person(api), Person(api)
        api.refuse("sendMessage", chat=alice.id, status=429, description="Too Many", retry_after=9)
        await bot.send_message(bob.id, "a")
        with pytest.raises(TelegramRetryAfter) as refused:
            await bot.send_message(alice.id, "a")
        assert refused.value.retry_after == 9
        with pytest.raises(
            TelegramRetryAfter
        ) as refused:  # the order was for one, its wait for all
            await bot.send_message(alice.id, "a")
        assert refused.value.retry_after == 36


async def test_an_answer_may_be_nonsense():
    async with serving() as (api, bot):
        api.refuse("getMe", status=502, body="<html>")
        with pytest.raises(ClientDecodeError):
            await bot.get_me()
        assert (await bot.get_me()).id == 42


# chats


async def test_chats_may_be_closed_to_the_bot():
    async with serving() as (api, bot):
        alice, bob, group, other = Person(api), Person(api), Group(api), Group(api)
        alice.blocks()
        with pytest.raises(TelegramForbiddenError, match="bot was blocked by the user"):
            await bot.send_message(alice.id, "a")
        bob.chat.chat.gone = True
        with pytest.raises(TelegramBadRequest, match="chat not found"):
            await bot.send_message(bob.id, "a")
        group.chat.blocked = "bot was kicked from the group chat"
        with pytest.raises(TelegramForbiddenError, match="kicked"):
            await bot.send_message(group.id, "a")
        new = other.becomes()
        with pytest.raises(TelegramMigrateToChat) as moved:
            await bot.send_message(other.id, "a")
        assert moved.value.migrate_to_chat_id == new.id
        assert (await bot.send_message(new.id, "a")).chat.type == "supergroup"
        (update,) = await bot.get_updates()
        assert update.message.migrate_to_chat_id == new.id


async def test_an_unknown_file_is_not_found():
    async with serving() as (_, bot):
        with pytest.raises(TelegramNotFound):
            await bot.get_file("nothing")
