"""The display: an answer as its reader sees it grow, by drafts or edits, and then whole."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from aiogram.exceptions import AiogramError, TelegramBadRequest, TelegramNotFound
from aiogram.methods import EditMessageText, SendChatAction, SendMessage, SendMessageDraft
from aiogram.types import Message, ReplyParameters

from fst_telegram.formatting import Piece, pieces

if TYPE_CHECKING:
    from aiogram.methods import TelegramMethod
    from aiogram.types import InlineKeyboardMarkup

    from fst_telegram.outbox import Outbox
    from fst_telegram.settings import TelegramSettings
    from fst_telegram.store import Answer

__all__ = ["Display"]

_TYPING_SECONDS = 4.5
"""How often a group is told that the bot is typing, which it shows for five seconds."""


class Display:
    """Shows the text of an answer while it grows, and in the end.

    In a private chat the last piece is a draft, with Telegram's button to stop it; in a group, and
    where a Bot API server knows no drafts, it is a message that is edited. Pieces before the last
    are messages already.
    """

    def __init__(self, outbox: Outbox, settings: TelegramSettings, answer: Answer) -> None:
        self._outbox = outbox
        self._settings = settings
        self._answer = answer
        self._prompt = answer.prompt if answer.mode == "continue" and not answer.goes_on else ""
        self._drafts = answer.chat > 0
        self._sent: list[tuple[int, Piece]] = []
        self._draft: Piece | None = None
        self._drafted, self._typed = float("-inf"), float("-inf")
        self._now = asyncio.get_running_loop().time
        self._changed = asyncio.Event()
        self._over = False
        self.text = ""
        """What the model has written so far."""

    def grow(self, text: str) -> None:
        """Add what the model wrote."""
        self.text += text
        if text:
            self._changed.set()

    def end(self) -> None:
        """Let `follow` return."""
        self._over = True
        self._changed.set()

    async def follow(self) -> None:
        """Show the text as it grows, until it has ended.

        Raises:
            ChatGone: nobody can see it.
        """
        # A quick model's first words are there before a draft without any would be.
        await self._change(min(self._settings.draft_seconds, 1.0) / 2)
        while not self._over:
            if not self.text.strip() and not self._drafts:
                await self._type()
            else:
                await self._step()
            await self._change(self._renewal())

    def _renewal(self) -> float:
        """Return in how many seconds something is to be shown, though there is no news."""
        if not self._drafts:
            return _TYPING_SECONDS
        return max(0.0, self._drafted + self._settings.draft_renew_seconds - self._now())

    async def _change(self, seconds: float) -> None:
        """Wait for news, for so long at most."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
        self._changed.clear()

    async def _type(self) -> None:
        """Tell a group that the bot is typing; this is no message, and has no pace."""
        if self._now() - self._typed >= _TYPING_SECONDS and not self._outbox.refuses(
            self._answer.chat
        ):
            self._typed = self._now()
            action = SendChatAction(
                chat_id=self._answer.chat, action="typing", message_thread_id=self._answer.thread
            )
            await self._outbox.call(action)

    async def _step(self) -> None:
        """Make the call that comes next, if one does, with the text that is there at its time."""
        at, piece, is_draft = 0, Piece(""), False

        def make() -> TelegramMethod[Any] | None:
            nonlocal at, piece, is_draft
            if self._over:
                return None
            shown = pieces(self._prompt, self.text) if self.text.strip() else [Piece("")]
            at = self._next(shown)
            if at == len(shown):
                return None
            piece, is_draft = shown[at], self._drafts and at == len(shown) - 1
            if not is_draft:
                return self._message(at, piece)
            late = self._now() - self._drafted >= self._settings.draft_renew_seconds
            return self._as_draft(piece) if late or not piece.looks_like(self._draft) else None

        try:
            result = await self._outbox.send(self._answer.chat, make, keep=False)
        except (TelegramBadRequest, TelegramNotFound):
            if is_draft:
                self._drafts = False  # a server that knows none: edits do as well
            elif at < len(self._sent):
                del self._sent[at:]  # taken away by somebody: it is sent anew
        except AiogramError:
            return  # the next one may go better
        else:
            if result is not None and is_draft:
                self._draft, self._drafted = piece, self._now()
            elif result is not None:
                self._note(at, piece, result)

    async def finish(self, note: str, keyboard: InlineKeyboardMarkup | None) -> None:
        """Show the whole text with a note below it, and buttons.

        Raises:
            ChatGone: nobody can see it.
            AiogramError: Telegram cannot be reached, or takes none of it.
        """
        shown = pieces(self._prompt if self.text.strip() else "", self.text, note)
        if not any(piece.text.strip() for piece in shown):
            return
        keyed = keyboard is None
        while (at := self._next(shown)) < len(shown) or not keyed:
            at = min(at, len(shown) - 1)
            last = at == len(shown) - 1
            keyed = keyed or last
            call = self._message(at, shown[at], keyboard if last else None)
            try:
                result = await self._outbox.send(self._answer.chat, partial(_given, call))
            except TelegramBadRequest:
                if at >= len(self._sent):
                    raise
                del self._sent[at:]
                keyed = keyboard is None
            else:
                self._note(at, shown[at], result)

    def _next(self, shown: list[Piece]) -> int:
        """Return the first piece that is not there yet as it should be."""
        for at, piece in enumerate(shown):
            if at >= len(self._sent) or not piece.looks_like(self._sent[at][1]):
                return at
        return len(shown)

    def _note(self, at: int, piece: Piece, result: object) -> None:
        """Note what the chat shows now."""
        if at < len(self._sent):
            self._sent[at] = (self._sent[at][0], piece)
        elif isinstance(result, Message):
            self._sent.append((result.message_id, piece))

    def _message(
        self, at: int, piece: Piece, keyboard: InlineKeyboardMarkup | None = None
    ) -> TelegramMethod[Any]:
        chat, entities = self._answer.chat, list(piece.entities) or None
        if at < len(self._sent):
            return EditMessageText(
                chat_id=chat, message_id=self._sent[at][0], text=piece.text, entities=entities,
                reply_markup=keyboard,
            )  # fmt: skip
        reply = None
        if at == 0 and chat < 0 and self._answer.asked_by is not None:
            reply = ReplyParameters(
                message_id=self._answer.asked_by, allow_sending_without_reply=True
            )
        return SendMessage(
            chat_id=chat, message_thread_id=self._answer.thread, text=piece.text, entities=entities,
            reply_markup=keyboard, reply_parameters=reply,
        )  # fmt: skip

    def _as_draft(self, piece: Piece) -> SendMessageDraft:
        return SendMessageDraft(
            chat_id=self._answer.chat, message_thread_id=self._answer.thread,
            draft_id=self._answer.id, text=piece.text, entities=list(piece.entities) or None,
            can_stop=True, keep_on_stop=True,
        )  # fmt: skip


def _given(call: TelegramMethod[Any]) -> TelegramMethod[Any]:
    return call
