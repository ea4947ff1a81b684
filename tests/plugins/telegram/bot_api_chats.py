"""The chats of the fake Bot API: what a person sees there; see `bot_api`."""

from __future__ import annotations

from dataclasses import dataclass, field

from bot_api_texts import Refused, bad

DRAFT_SECONDS = 30
"""How long a draft is shown after the last call."""


@dataclass
class Posted:
    """A message in a chat."""

    id: int
    sender: dict
    text: str
    at: float
    entities: list = field(default_factory=list)
    markup: dict | None = None
    reply_to: int | None = None
    document: dict | None = None
    content: bytes = b""
    """The document's."""
    changed: int = 0
    """When it was last sent or edited, counted in events of the server."""
    edits: int = 0

    @property
    def buttons(self):
        """The buttons under it, in reading order: (text, data)."""
        rows = (self.markup or {}).get("inline_keyboard", [])
        return [(b["text"], b.get("callback_data")) for row in rows for b in row]


@dataclass
class Draft:
    """A draft that a private chat shows until it ends, or a message comes."""

    id: int
    text: str
    at: float
    can_stop: bool
    changed: int = 0
    stopped: bool = False


@dataclass
class Chat:
    """A chat, and what is in it."""

    api: object
    id: int
    type: str
    title: str | None = None
    person: dict | None = None
    """Of a private chat."""
    messages: dict = field(default_factory=dict)
    draft_: Draft | None = None
    blocked: str | None = None
    """Why the bot may not write."""
    gone: bool = False
    moved: int | None = None
    """The id of the supergroup that the group became."""
    acted: int = 0
    """When a person last did something here, counted in events of the server."""

    @property
    def group(self):
        """Whether it is a group."""
        return self.type in {"group", "supergroup"}

    @property
    def draft(self):
        """The draft that is shown now."""
        draft = self.draft_
        if draft is None or self.api.now() - draft.at > DRAFT_SECONDS:
            return None
        return draft

    @property
    def answers(self):
        """What the bot has posted, in order."""
        return [m for m in self.messages.values() if m.sender["is_bot"]]

    @property
    def last(self):
        """What the bot has posted last."""
        return self.answers[-1]

    def open_to_bot(self):
        """Say whether the bot may write here.

        Raises:
            Refused: it may not.
        """
        if self.gone:
            raise bad("chat not found")
        if self.moved is not None:
            raise Refused(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                migrate_to_chat_id=self.moved,
            )
        if self.blocked is not None:
            raise Refused(403, f"Forbidden: {self.blocked}")

    def described(self):
        """Return the chat as the API describes it."""
        if self.person is not None:
            names = {k: self.person[k] for k in ("first_name", "username") if k in self.person}
            return {"id": self.id, "type": self.type, **names}
        return {"id": self.id, "type": self.type, "title": self.title}

    def message(self, posted, *, deep=True):
        """Return a message as the API describes it."""
        said = {
            "message_id": posted.id,
            "date": int(self.api.wall(posted.at)),
            "chat": self.described(),
        }
        if self.type == "channel":
            said["sender_chat"] = self.described()
        else:
            said["from"] = posted.sender
        if posted.document is not None:
            said["document"] = posted.document
        elif posted.text:
            said["text"] = posted.text
        if posted.entities:
            said["entities"] = posted.entities
        if posted.markup and "inline_keyboard" in posted.markup:
            said["reply_markup"] = posted.markup
        if deep and posted.reply_to in self.messages:
            said["reply_to_message"] = self.message(self.messages[posted.reply_to], deep=False)
        return said
