"""What the bot of the fake Bot API is told, and how it gets that; see `bot_api`."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress

import aiohttp
from aiogram.types import Update
from bot_api_texts import Refused, bad

WITHOUT_ASKING = {"chat_member", "message_reaction", "message_reaction_count"}
"""Types of updates that come only to who names them."""
CONFLICT = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"


class Updates:
    """Updates that wait until the bot asks for them, or are delivered to its webhook."""

    def __init__(self):
        self.updates, self.confirmed, self.delivered = {}, 0, []
        """What is not confirmed yet, by id; up to which it was; all (id, at) that were handed out."""
        self.allowed = None
        self.webhook, self.proxy = None, None
        self._polls = 0
        self._delivering = None

    def tell(self, kind, said):
        """Keep an update for the bot, and return its id."""
        id_ = next(self._ids["update"])
        update = {"update_id": id_, kind: said}
        Update.model_validate(update)
        self.tell_raw(update)
        return id_

    def tell_raw(self, update):
        """Keep an update as it is."""
        kinds = set(update) - {"update_id"}
        allowed = self.allowed
        if not allowed and kinds & WITHOUT_ASKING:
            return
        if allowed and not kinds & set(allowed):
            return
        self.updates[update["update_id"]] = update
        self.change()

    def next_id(self, kind):
        """Return a new id of an update, message, query or file."""
        return next(self._ids[kind])

    async def get_updates(self, said, _files):
        """Hand out updates, oldest first."""
        if self.webhook is not None:
            raise Refused(
                409,
                "Conflict: can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first",
            )
        offset, limit = said.get("offset") or 0, said.get("limit") or 100
        if said.get("allowed_updates") is not None:
            self.allowed = said["allowed_updates"]
        self._polls += 1
        mine = self._polls
        self.change()  # who waits here already is ended
        if offset < 0:
            offset = next(iter(sorted(self.updates)[offset:]), 0)
        for id_ in [i for i in self.updates if i < offset]:
            del self.updates[id_]
        self.confirmed = max(self.confirmed, offset)
        end = self.now() + (said.get("timeout") or 0)
        while not self.updates and (left := end - self.now()) > 0:
            await self.changed(left / self.clock.scale)
            if mine != self._polls:
                raise Refused(409, CONFLICT)
            if self.webhook is not None:
                return []
        found = [self.updates[i] for i in sorted(self.updates)[:limit]]
        self.delivered += [(u["update_id"], self.now()) for u in found]
        return found

    async def set_webhook(self, said, _files):
        """Deliver updates to an address."""
        url = said.get("url") or ""
        if not url:
            return await self.delete_webhook(said, _files)
        if not url.startswith("https://") and self.proxy is None:
            raise bad("bad webhook: An HTTPS URL must be provided for webhook")
        secret = said.get("secret_token")
        if secret is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
            raise bad("secret token contains unallowed characters")
        await self._end_delivering()
        if said.get("allowed_updates") is not None:
            self.allowed = said["allowed_updates"]
        if said.get("drop_pending_updates"):
            self.updates.clear()
        self.webhook = {"url": url, "secret": secret}
        self._delivering = asyncio.create_task(self._deliver())
        return True

    async def delete_webhook(self, said, _files):
        """Go back to getUpdates."""
        self.webhook = None
        await self._end_delivering()
        if said.get("drop_pending_updates"):
            self.updates.clear()
        return True

    async def webhook_info(self, _said, _files):
        """Tell of the webhook."""
        url = self.webhook["url"] if self.webhook else ""
        return {
            "url": url,
            "has_custom_certificate": False,
            "pending_update_count": len(self.updates),
        }

    async def _end_delivering(self):
        if self._delivering is not None and self._delivering is not asyncio.current_task():
            self._delivering.cancel()
            with suppress(asyncio.CancelledError):
                await self._delivering
        self._delivering = None

    async def _deliver(self):
        """Send each update to the webhook, again and again until it is taken."""
        async with aiohttp.ClientSession() as session:
            while True:
                if not self.updates:
                    await self.changed(60)
                    continue
                id_ = min(self.updates)
                if await self.deliver_once(session, self.updates[id_]) // 100 == 2:
                    self.updates.pop(id_, None)
                    self.confirmed = id_ + 1
                else:  # Telegram too pauses before it sends again
                    await asyncio.sleep(1 / self.clock.scale)

    async def deliver_once(self, session, update, **headers):
        """Send an update to the webhook once; return the status, 0 if nobody listens."""
        address = self.webhook["url"]
        if self.proxy is not None:
            address = self.proxy + "/" + address.split("//", 1)[1].partition("/")[2]
        if self.webhook["secret"]:
            headers.setdefault("X-Telegram-Bot-Api-Secret-Token", self.webhook["secret"])
        try:
            async with session.post(address, json=update, headers=headers) as answer:
                self.delivered.append((update["update_id"], self.now()))
                said = await answer.read()
                if said[:1] == b"{" and answer.ok and "method" in json.loads(said):
                    self.faults.append(
                        "a webhook's answer that is a call: the fake does not take them"
                    )
                return answer.status
        except aiohttp.ClientError:
            return 0
