"""Handlers: what each command, text and button does; none of them waits for Telegram or the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiogram import F, Router
from aiogram.filters import Command, CommandStart
from aiogram.types import Message, MessageGenerationStopped
from aiogram.utils.i18n import get_i18n
from aiogram.utils.i18n import gettext as _

from fst_telegram.access import Seldom
from fst_telegram.export import lines
from fst_telegram.keyboards import Again, Choose, Vote, settings_keyboard, under_answer
from fst_telegram.store import Answer
from fst_telegram.texts import describe, help_text

if TYPE_CHECKING:
    from aiogram.types import CallbackQuery

    from fst_telegram.talk import Talk

__all__ = ["Handlers"]


class Handlers:
    """Does what people ask for."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._say = talk.replies.say
        self._seldom = Seldom(30.0)

    def router(self) -> Router:
        """Return the router that leads updates to the handlers."""
        router = Router()
        message, button = router.message, router.callback_query
        message.register(self.moved, F.migrate_to_chat_id)
        message.register(self.start, CommandStart())
        for name in (
            "help", "new", "stop", "settings", "model", "retry", "continue", "export", "stats",
        ):  # fmt: skip
            message.register(getattr(self, f"{name}_"), Command(name))
        message.register(self.unknown, F.text.startswith("/"))
        message.register(self.text, F.text)
        message.register(self.other, F.chat.type == "private")
        button.register(self.again, Again.filter())
        button.register(self.vote, Vote.filter())
        button.register(self.choose, Choose.filter())
        router.stopped_message_generation.register(self.stopped)
        return router

    # commands

    async def start(self, message: Message) -> None:
        """Greet."""
        mode = await self._mode(message)
        self._say(message, _("Hello!") + "\n\n" + help_text(mode))

    async def help_(self, message: Message) -> None:
        """Say what the bot does."""
        self._say(message, help_text(await self._mode(message)))

    async def new_(self, message: Message) -> None:
        """Begin a new conversation."""
        await self._talk.store.set_chat(message.chat.id, new=True)
        self._say(message, _("A new conversation. What was said before no longer counts."))

    async def stop_(self, message: Message) -> None:
        """Stop what the bot writes for a person here."""
        user = None if message.chat.type == "private" else _user(message)
        if not self._talk.answers.stop("stopped", chat=message.chat.id, user=user):
            self._say(message, _("I am not writing anything."))

    async def settings_(self, message: Message) -> None:
        """Show the settings."""
        _conversation, chosen = await self._talk.store.chat(message.chat.id)
        text = _("Settings of this chat. A high temperature is bolder, a low one more careful.")
        self._say(message, text, settings_keyboard(self._talk.modes, chosen))

    async def model_(self, message: Message) -> None:
        """Tell of the model."""
        text = describe(self._talk.engine.describe(), await self._mode(message))
        left = await self._talk.budget.left(_user(message))
        if left is not None:
            text += "\n" + _("Tokens left for you today: {left}").format(left=left)
        self._say(message, text)

    async def retry_(self, message: Message) -> None:
        """Answer the last question again."""
        last = await self._talk.store.answer(message.chat.id)
        if last is None:
            self._say(message, _("There is nothing to answer again yet."))
        else:
            await self._begin(message, last.prompt, again=last)

    async def continue_(self, message: Message) -> None:
        """Go on writing."""
        last = await self._talk.store.answer(message.chat.id)
        if last is None or not last.text:
            self._say(message, _("There is nothing to go on with yet."))
        elif last.mode == "chat":
            await self._begin(message, _("Go on."), goes_on=True)
        else:
            await self._begin(message, last.prompt + last.text, goes_on=True)

    async def export_(self, message: Message) -> None:
        """Send the conversation as a file."""
        conversation, _chosen = await self._talk.store.chat(message.chat.id)
        found = "".join(lines(await self._talk.store.turns(message.chat.id, conversation)))
        if found:
            self._talk.replies.file(message, "conversation.jsonl", found)
        else:
            self._say(message, _("There is nothing here yet."))

    async def stats_(self, message: Message) -> None:
        """Show an admin what happens."""
        if _user(message) not in self._talk.settings.admins:
            return await self.unknown(message)
        counted = await self._talk.store.statistics()
        counted["running or waiting"] = len(self._talk.answers)
        counted |= {
            f"engine {k}": v for k, v in self._talk.engine.describe().items() if k in {"running", "waiting"}
        }  # fmt: skip
        return self._say(message, "\n".join(f"{k}: {v}" for k, v in counted.items()))

    async def unknown(self, message: Message) -> None:
        """Say that there is no such command; in a group it may be another bot's."""
        if message.chat.type == "private":
            self._say(message, _("I do not know this command. /help lists those I know."))

    # texts

    async def text(self, message: Message, said: str) -> None:
        """Answer."""
        if said:
            await self._begin(message, said)

    async def other(self, message: Message) -> None:
        """Say that pictures and the like are not read."""
        if self._seldom((message.chat.id, "other")):
            self._say(message, _("I read texts only."))

    async def moved(self, message: Message) -> None:
        """Follow a group that became a supergroup."""
        assert message.migrate_to_chat_id is not None
        await self._talk.moved(message.chat.id, message.migrate_to_chat_id)

    # buttons

    async def again(self, query: CallbackQuery, callback_data: Again) -> None:
        """Answer again what a button is under."""
        self._talk.replies.notice(query)
        found = await self._of(query, callback_data.answer)
        if found is not None and isinstance(query.message, Message):
            await self._begin(query.message, found.prompt, again=found, user=query.from_user.id)

    async def vote(self, query: CallbackQuery, callback_data: Vote) -> None:
        """Remember what somebody thinks of an answer."""
        found = await self._of(query, callback_data.answer)
        if found is None or callback_data.vote not in {-1, 0, 1}:
            return self._talk.replies.notice(query)
        await self._talk.store.vote(found.id, callback_data.vote)
        self._talk.replies.notice(query, _("Thank you!") if callback_data.vote else None)
        assert query.message is not None
        return self._talk.replies.buttons(query.message, under_answer(found.id, callback_data.vote))

    async def choose(self, query: CallbackQuery, callback_data: Choose) -> None:
        """Change a setting."""
        self._talk.replies.notice(query)
        modes, name, value = self._talk.modes, callback_data.name, callback_data.value
        if query.message is None or not (name == "" or modes.may_choose(name, value)):
            return
        chat = query.message.chat.id
        _conversation, before = await self._talk.store.chat(chat)
        chosen = {**before, name: modes.typed(name, value)} if name else {}
        await self._talk.store.set_chat(chat, chosen, new=modes.mode(chosen) != modes.mode(before))
        self._talk.replies.buttons(query.message, settings_keyboard(modes, chosen))

    async def stopped(self, event: MessageGenerationStopped) -> None:
        """Stop the answer whose draft has a button that was pressed."""
        self._talk.answers.stop("stopped", chat=event.chat.id, id_=event.draft_id)

    # what they share

    async def _begin(
        self,
        message: Message,
        prompt: str,
        *,
        again: Answer | None = None,
        goes_on: bool = False,
        user: int | None = None,
    ) -> None:
        """Begin an answer, if the person may have one now."""
        user = _user(message) if user is None else user
        if not self._talk.answers.has_room(user):
            if self._seldom((message.chat.id, user, "busy")):
                text = _("I am busy with what you asked before. Wait for it, or /stop it.")
                self._say(message, text)
            return
        if await self._talk.budget.left(user) == 0:
            if self._seldom((message.chat.id, user, "budget")):
                text = _("You have used up today's tokens. There are new ones after midnight, UTC.")
                self._say(message, text)
            return
        conversation, chosen = await self._talk.store.chat(message.chat.id)
        answer = Answer(
            id=0,
            chat=message.chat.id,
            thread=message.message_thread_id if message.is_topic_message else None,
            user=user,
            language=get_i18n().current_locale,
            asked_by=message.message_id,
            mode=again.mode if again else self._talk.modes.mode(chosen),
            conversation=again.conversation if again else conversation,
            turn=again.turn if again else 0,
            prompt=prompt,
            goes_on=again.goes_on if again else goes_on,
        )
        self._talk.answers.start(await self._talk.store.begin(answer), self._talk.answering.run)

    async def _mode(self, message: Message) -> str:
        return self._talk.modes.mode((await self._talk.store.chat(message.chat.id))[1])

    async def _of(self, query: CallbackQuery, answer: int) -> Answer | None:
        """Return the answer that a button is under, if it is one of its chat."""
        if query.message is None:
            return None
        return await self._talk.store.answer(query.message.chat.id, answer)


def _user(message: Message) -> int:
    assert message.from_user is not None  # Access lets nothing through without
    return message.from_user.id
