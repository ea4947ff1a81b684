"""People who talk to a bot through the fake Bot API: what they do, and what they wait to see.

    alice = Person(api, "Alice")
    alice.says("Good morning")
    await alice.chat.sees("Good")          # in a message or a draft of the bot
    alice.presses(await alice.chat.gets("morning"), "Repeat")

Nobody here sleeps: each look waits until something happens in the server, for at most `PATIENCE`
real seconds, and then fails with what there is to see.
"""

from __future__ import annotations

import re
import time
from itertools import count

import aiohttp
from bot_api_texts import units

PATIENCE = 60.0
"""Real seconds until somebody gives up: more than a busy machine needs."""
_USERS, _GROUPS = count(1001), count(2001)


async def until(api, seen, what, seconds=PATIENCE):
    """Wait until `seen()` is true, and return it."""
    end = time.monotonic() + seconds
    while True:
        if found := seen():
            return found
        left = end - time.monotonic()
        assert left > 0, f"{what() if callable(what) else what}: not within {seconds} seconds"
        # Time itself may be what is waited for.
        await api.changed(min(left, 0.05))


class Place:
    """A chat as those see it who are in it."""

    def __init__(self, api, chat):
        self.api, self.chat = api, chat

    def __getattr__(self, name):
        return getattr(self.chat, name)

    @property
    def news(self):
        """What the bot has posted or changed since somebody last did something here."""
        return [m for m in self.chat.answers if m.changed > self.chat.acted]

    async def gets(self, text="", seconds=PATIENCE):
        """Wait for a message of the bot with this text (or of which a function says yes), and return it."""
        return await until(
            self.api, lambda: _first(self.news, text), lambda: self._but("get", text), seconds
        )

    async def sees(self, text, seconds=PATIENCE):
        """Wait for a message or a draft with this text, and return it."""

        def seen():
            draft = self.chat.draft
            drafts = [draft] if draft and draft.changed > self.chat.acted else []
            return _first([*self.news, *drafts], text)

        return await until(self.api, seen, lambda: self._but("see", text), seconds)

    async def drafted(self, text="", seconds=PATIENCE):
        """Wait for a draft with this text, and return it."""

        def seen():
            draft = self.chat.draft
            new = draft and draft.changed > self.chat.acted
            return draft if new and text in draft.text else None

        return await until(self.api, seen, lambda: self._but("be drafted", text), seconds)

    def _but(self, verb, text):
        there = [m.text[:300] for m in self.news]
        return f"to {verb} {text!r} in {self.chat.id}; there is {there}, and the draft {self.chat.draft}"


class Person:
    """Somebody with a private chat."""

    def __init__(self, api, name="Alice", *, language="en", username=None, id_=None):
        self.api = api
        self.user = {
            "id": id_ or next(_USERS), "is_bot": False, "first_name": name, "language_code": language,
        }  # fmt: skip
        if username:
            self.user["username"] = username
        self.chat = Place(api, api.chat(self.id, "private", person=self.user))

    @property
    def id(self):
        """The number by which settings know them."""
        return self.user["id"]

    def says(self, text, *, place=None, reply_to=None):
        """Send a message, and return it."""
        chat = (place or self.chat).chat
        reply = None if reply_to is None else reply_to.id
        posted = self.api.post(chat, self.user, text, entities=_entities(text), reply_to=reply)
        chat.acted = posted.changed
        kind = "channel_post" if chat.type == "channel" else "message"
        posted.update = self.api.tell(kind, chat.message(posted))
        return posted

    def edits(self, posted, text, *, place=None):
        """Change what was said."""
        chat = (place or self.chat).chat
        posted.text, posted.entities = text, _entities(text)
        chat.acted = next(self.api.events)
        self.api.tell("edited_message", {**chat.message(posted), "edit_date": int(time.time())})

    def presses(self, posted, button, *, place=None):
        """Press a button under a message, known by its text or data; return the query's id."""
        chat = (place or self.chat).chat
        data = next((d for t, d in posted.buttons if button in {t, d}), None)
        data = data or next((d for t, d in posted.buttons if button in t), None)
        assert data, f"no button {button!r} among {posted.buttons}"
        chat.acted = next(self.api.events)
        id_ = f"q{self.api.next_id('query')}"
        self.api.callbacks[id_] = None
        said = {
            "id": id_, "from": self.user, "chat_instance": str(chat.id), "data": data,
            "message": chat.message(posted),
        }  # fmt: skip
        self.api.tell("callback_query", said)
        return id_

    def stops(self, draft):
        """Press the stop button of a draft."""
        assert draft.can_stop
        draft.stopped = True
        self.chat.chat.acted = next(self.api.events)
        said = {"chat": self.chat.described(), "draft_id": draft.id}
        self.api.tell("stopped_message_generation", said)

    def asks_inline(self, query):
        """Write the bot's name and a text in another chat; return the query's id."""
        id_ = f"i{self.api.next_id('query')}"
        self.api.inline[id_] = None
        self.api.tell("inline_query", {"id": id_, "from": self.user, "query": query, "offset": ""})
        return id_

    async def noticed(self, query, seconds=PATIENCE):
        """Wait until the bot has answered a pressed button or an inline query, and return its answer."""
        asked = self.api.callbacks if query in self.api.callbacks else self.api.inline
        return await until(self.api, lambda: asked[query], f"an answer to {query}", seconds)

    def blocks(self):
        """Let the bot write no more."""
        self.chat.chat.blocked = "bot was blocked by the user"


class Group(Place):
    """A group, or a channel, with the bot in it."""

    def __init__(self, api, title="Poets", *, type_="group", id_=None):
        number = -next(_GROUPS)
        if type_ != "group":
            number -= 10**12
        super().__init__(api, api.chat(id_ or number, type_, title=title))

    def becomes(self):
        """Become a supergroup: return it."""
        other = Group(self.api, self.chat.title, type_="supergroup")
        self.chat.moved = other.chat.id
        sender = {"id": 777000, "is_bot": False, "first_name": "Telegram"}
        said = self.chat.message(self.api.post(self.chat, sender))
        self.api.tell("message", {**said, "migrate_to_chat_id": other.chat.id})
        return other


async def call_plainly(api, method, token=None, **parameters):
    """Call a method as no library does; return the status and the answer."""
    url = f"{api.url}/bot{token or api.token}/{method}"
    async with aiohttp.ClientSession() as session, session.post(url, json=parameters) as answer:
        return answer.status, await answer.json()


def _first(messages, text):
    is_it = text if callable(text) else lambda m: text in m.text
    return next((m for m in messages if is_it(m)), None)


def _entities(text):
    """Return the entities that Telegram finds in what a person says."""
    found = []
    for kind, pattern in (
        ("bot_command", r"(?<!\S)/\w+(?:@\w+)?"),
        ("mention", r"(?<![\w/])@\w{4,}"),
    ):
        for match in re.finditer(pattern, text):
            place = {"offset": units(text[: match.start()]), "length": units(match[0])}
            found.append({"type": kind, **place})
    return found
