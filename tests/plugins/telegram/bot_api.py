"""A server that behaves as the Bot API of Telegram does towards a bot, for tests.

    async with BotApi(token="42:secret") as api:
        bot = Bot("42:secret", AiohttpSession(api=TelegramAPIServer.from_base(api.url)))
        ...

It listens on a free port of the loopback interface and keeps what people do (`people.Person`) until
the bot asks for it, or sends it to the bot's webhook. A bot of FST finds it by its setting
`api_base`, the one that leads to a Bot API server of one's own as well (github.com/tdlib/telegram-bot-api),
whose answers are the same. What it knows:

* Methods: those of `METHODS`, called as forms, JSON or in the query, by the token; a wrong token is
  `401 Unauthorized`, an unknown method `404 Not Found`. Parameters and results are checked by the
  types of aiogram, so that both are those of the Bot API that aiogram speaks.
* Updates: `getUpdates` waits for `timeout` seconds, `offset` confirms what is below it, what is not
  confirmed comes again; two at once are a conflict, and so is one while a webhook is set. Types that
  `allowed_updates` does not name are not kept. A webhook is called in order, with its secret, and
  again until it answers 2xx; `proxy` says where the server behind the webhook's public address is.
* Texts: 1 to 4,096 units of UTF-16, entities within them, MarkdownV2 and HTML refused as Telegram
  refuses them, an edit that changes nothing is an error. White space at the ends falls away.
* Drafts: in private chats alone, with an id that is not 0, shown for 30 seconds or until a message
  comes; a draft that may be stopped can be, and the bot is told.
* Limits (`Limits`): one message a second in a chat, 20 a minute in a group, 30 a second in all, short bursts
  borne; then 429 with `retry_after`, and four times longer for who calls again before it ends. Drafts
  and edits count as messages.
* Chats: one that is not known is `400 chat not found`; a person may block the bot (403), a group
  may remove it (403) or become a supergroup (400 with `migrate_to_chat_id`).

Every call is kept in `calls`, with what it was answered. `refuse` lets calls fail that would not,
`on_call` may hold them back. All times are seconds of a clock that may run faster (`Clock`): with a
scale of 10, thirty seconds last three.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import get_args

from aiogram import methods as aiogram_methods
from aiogram.methods import Response
from aiohttp import web
from bot_api_clock import Clock
from bot_api_limits import Limits, Pace
from bot_api_messages import Messages, number
from bot_api_texts import Refused, bad
from bot_api_updates import Updates
from pydantic import ValidationError


@dataclass
class Call:
    """A call of the bot."""

    method: str
    parameters: dict
    at: float
    chat: int | None = None
    status: int = 0
    answer: object = None
    """The result, or why it was refused."""
    parameters_of_refusal: dict = field(default_factory=dict)


class BotApi(Updates, Messages):
    """The server; see the module."""

    def __init__(self, token, *, username="fst_bot", clock=None, limits=None):
        super().__init__()
        self.token = token
        self.clock = clock or Clock()
        self.now, self.wall = self.clock.now, self.clock.wall
        self.pace = Pace(limits or Limits(), self.now)
        self.me = {
            "id": int(token.split(":")[0]),
            "is_bot": True,
            "first_name": "FST",
            "username": username,
        }
        self.chats, self.calls, self.faults = {}, [], []
        self.commands, self.refusals = {}, []
        self.on_call = None
        """A coroutine function that is awaited with each Call before it is answered."""
        self.callbacks, self.inline = {}, {}
        self.events = count(1)
        self._ids = {name: count(start) for name, start in
                     (("update", 700), ("message", 1), ("query", 5000), ("file", 1))}  # fmt: skip
        self._changed = asyncio.Event()

    # the server

    async def __aenter__(self):
        app = web.Application(client_max_size=60 * 2**20)
        app.router.add_route("*", "/bot{token}/{method}", self._called)
        app.router.add_get("/file/bot{token}/{path:.*}", self._file)
        # A client that is gone waits no more: what it did not confirm is for the next one.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        await self._end_delivering()
        await self._runner.cleanup()

    async def _called(self, request):
        if request.match_info["token"] != self.token:
            known = ":" in request.match_info["token"]
            return _failed(Refused(401, "Unauthorized") if known else Refused(404, "Not Found"))
        names = {name.lower(): name for name in METHODS}
        method = names.get(request.match_info["method"].lower())
        if method is None:
            return _failed(Refused(404, "Not Found: method not found"))
        call = Call(method, {}, self.now())
        self.calls.append(call)
        try:
            call.parameters, files = await _parameters(request, method)
            call.chat = number(call.parameters.get("chat_id"))
            if self.on_call is not None:
                await self.on_call(call)
            self._refuse_as_told(call)
            call.answer = await METHODS[method](self, call.parameters, files)
            call.status = 200
        except Refused as refused:
            call.status, call.answer = refused.status, refused.description
            call.parameters_of_refusal = refused.parameters
            return _failed(refused)
        except Exception as error:
            self.faults.append(f"{method}: {error!r}")
            raise
        finally:
            self.change()
        said = {"ok": True, "result": call.answer}
        returns = getattr(aiogram_methods, method[0].upper() + method[1:]).__returning__
        if method == "getUpdates":  # what was told is checked, unless it was to be wrong
            return web.json_response(said)
        try:
            Response[returns].model_validate(said)
        except ValidationError as error:
            self.faults.append(f"{method}: {error}")
        return web.json_response(said)

    async def _file(self, request):
        if request.match_info["token"] != self.token:
            return _failed(Refused(401, "Unauthorized"))
        for chat in self.chats.values():
            for posted in chat.messages.values():
                if posted.document and posted.document["file_id"] == request.match_info["path"]:
                    return web.Response(body=posted.content)
        return _failed(Refused(404, "Not Found"))

    # what tests ask for

    def change(self):
        """Wake who waits for something to happen."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, seconds):
        """Wait until something happens, at most so many real seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def refuse(
        self,
        *methods,
        chat=None,
        status=400,
        description="Bad Request",
        times=1,
        when=None,
        **parameters,
    ):
        """Let the next calls of these methods fail.

        Args:
            methods: names of methods.
            chat: of these calls alone.
            status: with which they are answered.
            description: why.
            times: how many of them.
            when: a function that says of a Call whether it is meant.
            parameters: such as `retry_after`, which is in force for the chat then; `body` is a
                text to answer instead of JSON.
        """
        refused = Refused(status, description, **parameters)
        self.refusals.append([methods, chat, refused, times, when])

    def _refuse_as_told(self, call):
        for told in self.refusals:
            methods, chat, refused, _, when = told
            if (
                call.method in methods
                and chat in {None, call.chat}
                and (when is None or when(call))
            ):
                told[3] -= 1
                if told[3] == 0:
                    self.refusals.remove(told)
                if seconds := refused.parameters.get("retry_after"):
                    self.pace.refuse(call.chat, seconds)
                raise refused

    def calls_of(self, *methods, chat=None, since=0.0):
        """Return the calls of these methods, or of all, in order."""
        return [
            c for c in self.calls
            if (not methods or c.method in methods) and chat in {None, c.chat} and c.at >= since
        ]  # fmt: skip

    # the rest

    async def get_me(self, _said, _files):
        """Tell who the bot is."""
        rights = {
            "can_join_groups": True,
            "can_read_all_group_messages": True,
            "supports_inline_queries": True,
        }
        return {**self.me, **rights}

    async def get_chat(self, said, _files):
        """Tell of a chat."""
        return {
            **self._chat_of(said).described(), "accent_color_id": 0, "max_reaction_count": 11,
            "accepted_gift_types": {
                "unlimited_gifts": False, "limited_gifts": False, "unique_gifts": False,
                "premium_subscription": False, "gifts_from_channels": False,
            },
        }  # fmt: skip

    async def get_chat_member(self, said, _files):
        """Tell of a member of a chat; everybody is one."""
        self._chat_of(said)
        return {
            "status": "member",
            "user": {"id": said["user_id"], "is_bot": False, "first_name": "Somebody"},
        }

    async def set_my_commands(self, said, _files):
        """Keep the menu of commands, by language."""
        self.commands[said.get("language_code") or ""] = [c["command"] for c in said["commands"]]
        return True

    async def done(self, _said, _files):
        """Do nothing."""
        return True


METHODS = {
    "answerCallbackQuery": BotApi.answer_callback_query,
    "answerInlineQuery": BotApi.answer_inline_query,
    "close": BotApi.done,
    "deleteMessage": BotApi.delete_message,
    "deleteMyCommands": BotApi.done,
    "deleteWebhook": BotApi.delete_webhook,
    "editMessageReplyMarkup": BotApi.edit_message_reply_markup,
    "editMessageText": BotApi.edit_message_text,
    "getChat": BotApi.get_chat,
    "getChatMember": BotApi.get_chat_member,
    "getMe": BotApi.get_me,
    "getUpdates": BotApi.get_updates,
    "getWebhookInfo": BotApi.webhook_info,
    "leaveChat": BotApi.done,
    "logOut": BotApi.done,
    "sendChatAction": BotApi.send_chat_action,
    "sendDocument": BotApi.send_document,
    "sendMessage": BotApi.send_message,
    "sendMessageDraft": BotApi.send_message_draft,
    "setMyCommands": BotApi.set_my_commands,
    "setMyDescription": BotApi.done,
    "setMyShortDescription": BotApi.done,
    "setWebhook": BotApi.set_webhook,
}


async def _parameters(request, method):
    """Return a call's parameters, checked, and its files: name and content by field."""
    raw, files = dict(request.query), {}
    if request.content_type == "application/json":
        raw |= await request.json()
    elif request.content_type == "multipart/form-data":
        async for part in await request.multipart():
            if part.filename:
                files[part.name] = (part.filename, bytes(await part.read()))
            else:
                raw[part.name] = await part.text()
    elif request.can_read_body:
        raw |= dict(await request.post())
    model = getattr(aiogram_methods, method[0].upper() + method[1:])
    decoded = {}
    for name, value in raw.items():
        declared = model.model_fields.get(name)
        if declared is None:
            raise bad(f"unknown parameter {name}")  # the API ignores it; no bot means it
        is_text = declared.annotation is str or str in get_args(declared.annotation)
        composed = isinstance(value, str) and value[:1] in "[{" and not is_text
        decoded[name] = json.loads(value) if composed else value
    if "text" in model.model_fields:
        decoded.setdefault("text", "")
    try:
        checked = model.model_validate(decoded)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise bad(f"can't parse {where}: {first['msg']}") from None
    plain = checked.model_dump(mode="json", exclude_none=True, exclude_unset=True, by_alias=True)
    return plain, files


def _failed(refused):
    if body := refused.parameters.get("body"):
        return web.Response(text=body, status=refused.status)
    said = {"ok": False, "error_code": refused.status, "description": refused.description}
    if refused.parameters:
        said["parameters"] = refused.parameters
    return web.json_response(said, status=refused.status)
