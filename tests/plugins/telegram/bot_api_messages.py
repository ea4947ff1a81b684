"""What the bot of the fake Bot API posts, shows and changes in chats; see `bot_api`."""

from __future__ import annotations

from bot_api_chats import Chat, Draft, Posted
from bot_api_texts import LONGEST_CAPTION, accepted, bad, units


class Messages:
    """Messages, drafts, files and answers, by the rules of the API."""

    def chat(self, id_, type_="private", **fields):
        """Return a chat; make it if it is new."""
        if id_ not in self.chats:
            self.chats[id_] = Chat(self, id_, type_, **fields)
        return self.chats[id_]

    def post(self, chat, sender, text="", **fields):
        """Put a message into a chat, and return it."""
        posted = Posted(next(self._ids["message"]), sender, text, self.now(), **fields)
        posted.changed = next(self.events)
        chat.messages[posted.id] = posted
        if sender["is_bot"]:
            chat.draft_ = None
        self.change()
        return posted

    def _chat_of(self, said):
        """Return the chat of a call, if the bot may write there."""
        chat = self.chats.get(number(said.get("chat_id")))
        if chat is None:
            raise bad("chat not found")
        chat.open_to_bot()
        return chat

    async def send_message(self, said, _files):
        """Post a message."""
        chat = self._chat_of(said)
        text, entities = _text(said)
        if not text:
            raise bad("message text is empty")
        return self._posted(chat, said, text, entities=entities)

    async def send_document(self, said, files):
        """Post a file."""
        chat = self._chat_of(said)
        name, content = files.get(said["document"].removeprefix("attach://"), (None, None))
        if content is None:
            raise bad("wrong remote file identifier specified: Wrong string length")
        if not content:
            raise bad("file must be non-empty")
        caption, _ = accepted(
            said.get("caption") or "", said.get("caption_entities"), said.get("parse_mode"),
            longest=LONGEST_CAPTION, too_long="message caption is too long",
        )  # fmt: skip
        file_id = f"file{self.next_id('file')}"
        document = {
            "file_id": file_id, "file_unique_id": f"u{file_id}", "file_name": name, "file_size": len(content),
        }  # fmt: skip
        return self._posted(chat, said, caption, document=document, content=content)

    def _posted(self, chat, said, text, **fields):
        markup = _markup(said)
        reply = said.get("reply_parameters") or {}
        reply_to = reply.get("message_id")
        if reply_to is not None and reply_to not in chat.messages:
            if not reply.get("allow_sending_without_reply"):
                raise bad("message to be replied not found")
            reply_to = None
        self.pace.count(chat.id, group=chat.group)
        posted = self.post(chat, self.me, text, markup=markup, reply_to=reply_to, **fields)
        return chat.message(posted)

    async def send_message_draft(self, said, _files):
        """Show a draft."""
        chat = self._chat_of(said)
        if chat.type != "private":
            raise bad("TEXTDRAFT_PEER_INVALID")
        if not said.get("draft_id"):
            raise bad("RANDOM_ID_INVALID")
        text, _ = _text(said)
        self.pace.count(chat.id, group=False)
        before = chat.draft
        if before is not None and before.id == said["draft_id"] and before.stopped:
            return True  # the person has stopped it, and sees no more of it
        chat.draft_ = Draft(
            said["draft_id"], text, self.now(), bool(said.get("can_stop")), next(self.events)
        )
        return True

    async def edit_message_text(self, said, _files):
        """Change a message's text."""
        chat, posted = self._editable(said)
        text, entities = _text(said, too_long="MESSAGE_TOO_LONG")
        if not text:
            raise bad("message text is empty")
        return self._edited(chat, posted, text, entities, _markup(said))

    async def edit_message_reply_markup(self, said, _files):
        """Change the buttons under a message."""
        chat, posted = self._editable(said)
        return self._edited(chat, posted, posted.text, posted.entities, _markup(said))

    def _editable(self, said):
        chat = self._chat_of(said)
        posted = chat.messages.get(said.get("message_id"))
        if posted is None:
            raise bad("message to edit not found")
        if posted.sender != self.me:
            raise bad("message can't be edited")
        return chat, posted

    def _edited(self, chat, posted, text, entities, markup):
        self.pace.count(chat.id, group=chat.group)
        if (text, entities, markup or {}) == (posted.text, posted.entities, posted.markup or {}):
            raise bad(
                "message is not modified: specified new message content and reply markup are exactly "
                "the same as a current content and reply markup of the message"
            )
        posted.text, posted.entities, posted.markup = text, entities, markup
        posted.changed, posted.edits = next(self.events), posted.edits + 1
        return {**chat.message(posted), "edit_date": int(self.wall(self.now()))}

    async def delete_message(self, said, _files):
        """Take a message away."""
        chat = self._chat_of(said)
        if chat.messages.pop(said["message_id"], None) is None:
            raise bad("message to delete not found")
        return True

    async def send_chat_action(self, said, _files):
        """Show that the bot is typing."""
        self._chat_of(said)
        return True

    async def answer_callback_query(self, said, _files):
        """End the wait of who has pressed a button."""
        if said["callback_query_id"] not in self.callbacks:
            raise bad("query is too old and response timeout expired or query ID is invalid")
        if units(said.get("text") or "") > 200:
            raise bad("MESSAGE_TOO_LONG")
        self.callbacks[said["callback_query_id"]] = said
        return True

    async def answer_inline_query(self, said, _files):
        """Show results to who wrote to the bot in another chat."""
        if said["inline_query_id"] not in self.inline:
            raise bad("query is too old and response timeout expired or query ID is invalid")
        if len(said["results"]) > 50:
            raise bad("RESULTS_TOO_MUCH")
        self.inline[said["inline_query_id"]] = said
        return True


def _text(said, **longest):
    return accepted(said.get("text") or "", said.get("entities"), said.get("parse_mode"), **longest)


def _markup(said):
    """Return the buttons of a call."""
    markup = said.get("reply_markup")
    for row in (markup or {}).get("inline_keyboard", []):
        for button in row:
            if not button["text"] or len((button.get("callback_data") or "?").encode()) > 64:
                raise bad("BUTTON_DATA_INVALID")
    return markup if markup and markup.get("inline_keyboard", True) else None


def number(chat_id):
    """Return the id of a chat, if it is one."""
    try:
        return int(chat_id)
    except (TypeError, ValueError):
        return None
