"""The bot of the frontend `telegram`, as a process, towards the fake Bot API: what it must survive.

The scenarios B1 to B12: floods, long answers, markup, strangers, crowds, engines that fail, power
cuts, stops, signals, webhooks and logs. Most run on a clock that is ten times faster, which makes a
delay of this machine ten times longer: bounds on single times allow for that.
"""

from __future__ import annotations

import itertools
import re
import time

import pytest
from aiogram.types import Update
from bot_api_limits import Limits
from bot_api_texts import units
from bot_process import BotProcess
from people import Group, Person, until

COUNTED = (
    "sendMessage",
    "sendMessageDraft",
    "editMessageText",
    "editMessageReplyMarkup",
    "sendDocument",
)


@pytest.fixture(scope="module")
def crowd(runner, tmp_path_factory):
    """A bot for everybody, on a clock ten times faster, that answers each person once at a time."""
    bot = BotProcess(
        tmp_path_factory.mktemp("crowd"), scale=10, engine={"slots": 50}, limits=Limits(burst=2),
        public=True, running_per_user=1, waiting_per_user=1,
    )  # fmt: skip
    runner.run(bot.__aenter__())
    yield bot
    runner.run(bot.__aexit__(None, None, None))
    assert bot.process.returncode == 0, bot.logs
    assert [c for c in bot.api.calls if c.status == 429] == []  # in all of these tests


def asked_last(bot, name):
    """Return the engine's last request of this name."""
    return bot.asked_about(f"name={name}")[-1]


def pace(calls, seconds):
    """Return the most calls that came within so many seconds."""
    times = [c.at for c in calls]
    return max((sum(at <= t < at + seconds for t in times) for at in times), default=0)


# B1: a flood


@pytest.fixture(scope="module")
def fast(runner, tmp_path_factory):
    """A bot whose clock runs fifty times faster, for long waits."""
    bot = BotProcess(tmp_path_factory.mktemp("fast"), scale=50, engine={"slots": 50}, public=True)
    runner.run(bot.__aenter__())
    yield bot
    runner.run(bot.__aexit__(None, None, None))


@pytest.mark.parametrize("seconds", [3, 33, 137])
@pytest.mark.parametrize("where", ["private", "group"])
async def test_b1_a_chat_that_was_refused_is_left_alone_until_it_may_be_called(
    fast, seconds, where
):
    api, alice, bob = fast.api, Person(fast.api), Person(fast.api, "Bob")
    place = alice.chat if where == "private" else Group(api)
    mention = "" if where == "private" else "@fst_bot "
    name = f"{where}{seconds}x"
    alice.says(f"{mention}tokens=50 speed=5 name={name}", place=place)
    await place.sees(f"{name}1")
    api.refuse(
        *COUNTED, chat=place.id, status=429, description="Too Many Requests", retry_after=seconds
    )
    refused = await until(
        api, lambda: [c for c in api.calls_of(chat=place.id) if c.status == 429], "a refusal"
    )
    end = refused[0].at + seconds
    bob.says("tokens=3 name=bob")
    elsewhere = await bob.chat.gets("bob3")
    answer = await place.gets(f"{name}50")
    (asked,) = fast.asked_about(f"name={name}")
    inside = [c for c in api.calls_of(chat=place.id) if refused[0].at < c.at < end]
    assert [c.method for c in inside] == []
    assert not [v for v in api.pace.violations if v[0] == place.id]
    assert asked["event"] == "ended"  # the engine was not held back
    if seconds > 30:
        assert asked["times"]["ended"] < end
        assert elsewhere.at < end
    await fast.quiet()
    assert answer.at >= end - 0.1 or answer.edits
    assert len([m for m in place.answers if f"{name}50" in m.text]) == 1


# B2: the pace of a long answer


async def test_b2_drafts_of_a_long_answer_come_once_a_second(crowd):
    alice = Person(crowd.api)
    alice.says("tokens=2000 speed=50 name=draft")
    answer = await alice.chat.gets("draft2000")
    (asked,) = crowd.asked_about("name=draft")
    calls = crowd.api.calls_of(*COUNTED, chat=alice.id)
    drafts = [c for c in calls if c.method == "sendMessageDraft"]
    seconds = asked["times"]["ended"] - asked["times"]["first"]
    assert seconds >= 39
    assert 10 <= len(drafts) <= seconds + 2
    assert pace(calls, 10) <= 11
    assert {c.status for c in calls} == {200}
    texts = [c.parameters["text"] for c in drafts]
    assert all(a != b for a, b in itertools.pairwise(texts))
    assert all(c.parameters["can_stop"] for c in drafts)
    assert len({c.parameters["draft_id"] for c in drafts}) == 1
    assert answer.at - asked["times"]["ended"] < 15  # seconds of a clock ten times faster


async def test_b2_edits_in_a_group_come_every_three_seconds_and_20_a_minute(crowd):
    alice, group = Person(crowd.api), Group(crowd.api)
    alice.says("@fst_bot tokens=300 speed=10 name=edit", place=group)
    await group.gets("edit300")
    (asked,) = crowd.asked_about("name=edit")
    assert asked["times"]["ended"] - asked["times"]["first"] >= 29
    calls = crowd.api.calls_of(*COUNTED, chat=group.id)
    assert crowd.api.calls_of("sendMessageDraft", chat=group.id) == []
    assert 8 <= len(calls) <= 15
    assert pace(calls, 60) <= 20
    assert pace(calls, 9) <= 4
    assert {c.status for c in calls} == {200}
    texts = [c.parameters["text"] for c in calls if c.method != "editMessageReplyMarkup"]
    assert all(a != b for a, b in itertools.pairwise(texts))


async def test_b2_a_draft_lives_on_while_the_engine_says_nothing(crowd):
    alice = Person(crowd.api)
    alice.says("first=35 tokens=3 name=late")
    drafts = []

    def answered():
        drafts.append(alice.chat.draft)
        return [m for m in alice.chat.news if "late3" in m.text]

    await alice.chat.drafted()
    drafts.clear()
    await until(crowd.api, answered, "an answer")
    assert None not in drafts[:-1]
    assert len(crowd.api.calls_of("sendMessageDraft", chat=alice.id)) <= 6


# B3: a long answer


async def test_b3_a_long_answer_comes_whole_in_several_messages(crowd):
    alice = Person(crowd.api)
    alice.says("say=essay name=whole")
    await until(crowd.api, lambda: crowd.asked_about("name=whole"), "a request")
    await crowd.quiet()
    said = crowd.asked_about("name=whole")[-1]["text"]
    assert len(said) > 11_000
    await alice.chat.gets(lambda m: m.buttons and m.text.endswith(said.rstrip()[-40:]))
    answers = alice.chat.answers
    assert bare("".join(m.text for m in answers)) == bare(said)
    assert 3 <= len(answers) <= 6
    for message in answers:
        assert units(message.text) <= 4000
        assert message.text.count("```") % 2 == 0
        code = [message.text[e["offset"] :] for e in message.entities if e["type"] == "pre"]
        assert len(code) == message.text.count("```") / 2
    # What was sent, not what is left when Telegram has cut the ends.
    sent = [c.parameters["text"] for c in crowd.api.calls_of("sendMessage", chat=alice.id)]
    assert all(units(text) <= 4000 for text in sent)


@pytest.mark.parametrize("text", ["letters", "faces"])
async def test_b3_a_word_that_no_message_holds_is_cut_between_characters(crowd, text):
    alice = Person(crowd.api)
    alice.says(f"say={text}")
    await alice.chat.gets(lambda m: m.buttons)
    await crowd.quiet()
    said = crowd.asked_about(f"say={text}")[-1]["text"]
    assert "".join(m.text for m in alice.chat.answers) == said
    assert max(units(m.text) for m in alice.chat.answers) <= 4000


async def test_b3_a_long_answer_comes_whole_in_a_group_too(crowd):
    alice, group = Person(crowd.api), Group(crowd.api)
    alice.says("@fst_bot say=essay name=shared", place=group)
    await group.gets(lambda m: m.buttons)
    await crowd.quiet()
    said = crowd.asked_about("name=shared")[-1]["text"]
    assert bare("".join(m.text for m in group.answers)) == bare(said)
    assert [bool(m.buttons) for m in group.answers] == [False] * (len(group.answers) - 1) + [True]


async def test_b3_a_message_that_somebody_deletes_is_sent_anew(crowd):
    alice, group = Person(crowd.api), Group(crowd.api)
    alice.says("@fst_bot tokens=100 speed=10 name=gone", place=group)
    gone = await group.sees("gone9 ")
    del group.messages[gone.id]
    await group.gets(lambda m: "gone100" in m.text and m.buttons)
    assert [m.text.count("gone1 ") for m in group.answers] == [1]


async def test_b3_a_server_that_knows_no_drafts_gets_edits(crowd):
    alice = Person(crowd.api)
    unknown = {"status": 404, "description": "Not Found: method not found"}
    crowd.api.refuse("sendMessageDraft", chat=alice.id, times=100, **unknown)
    alice.says("tokens=100 speed=10 name=old")
    await alice.chat.gets("old9 ")
    answer = await alice.chat.gets(lambda m: "old100" in m.text and m.buttons)
    assert alice.chat.answers == [answer]
    assert answer.edits >= 3
    assert len(crowd.api.calls_of("sendMessageDraft", chat=alice.id)) == 1
    crowd.api.refusals.clear()


def bare(text):
    """Return a text without white space, which Telegram cuts off where messages end."""
    return "".join(text.split())


# B4: marks of a format


async def test_b4_what_looks_like_markup_comes_as_it_is(crowd):
    alice = Person(crowd.api)
    alice.says("say=markup")
    answer = await alice.chat.gets()
    assert bare(answer.text) == bare(crowd.asked_about("say=markup")[-1]["text"])
    assert 400 not in {c.status for c in crowd.api.calls_of(chat=alice.id)}


async def test_b4_a_text_whose_entities_are_refused_is_sent_plainly_once(crowd):
    alice = Person(crowd.api)
    crowd.api.refuse(
        "sendMessage", chat=alice.id, times=10, when=lambda c: c.parameters.get("entities"),
        description="Bad Request: can't parse entities: Can't find end of Bold entity at byte offset 0",
    )  # fmt: skip
    alice.says("say=essay")
    await alice.chat.gets("7.")
    await crowd.quiet()
    refused = [c for c in crowd.api.calls_of("sendMessage", chat=alice.id) if c.status == 400]
    assert refused
    for call in refused:
        again = [
            c for c in crowd.api.calls_of("sendMessage", chat=alice.id)
            if c.status == 200 and bare(c.parameters["text"]) == bare(call.parameters["text"])
        ]  # fmt: skip
        assert len(again) == 1
        assert "entities" not in again[0].parameters


async def test_b4_an_edit_that_changes_nothing_is_no_error(crowd):
    alice, group = Person(crowd.api), Group(crowd.api)
    alice.says("@fst_bot tokens=80 speed=10 name=same", place=group)
    await group.sees("same1")
    crowd.api.refuse(
        "editMessageText", chat=group.id, description="Bad Request: message is not modified: the same",
    )  # fmt: skip
    answer = await group.gets("same80")
    assert len(group.answers) == 1
    assert answer.text.count("same1 ") == 1


# B5: who may


@pytest.fixture(scope="module")
def doorman(runner, tmp_path_factory):
    """A bot for one person and one group, with that person's name and number."""
    bot = BotProcess(
        tmp_path_factory.mktemp("doorman"),
        scale=10,
        allowed_users=[31],
        allowed_chats=[-77],
        admins=[31],
    )
    runner.run(bot.__aenter__())
    bot.alice = Person(bot.api, "Alice", username="alice", id_=31)
    bot.group = Group(bot.api, id_=-77)
    yield bot
    runner.run(bot.__aexit__(None, None, None))


async def test_b5_the_allowed_person_and_group_are_answered(doorman):
    doorman.alice.says("tokens=3 name=home")
    await doorman.alice.chat.gets("home3")
    stranger = Person(doorman.api, "Mallory")
    stranger.says("@fst_bot tokens=3 name=guest", place=doorman.group)
    await doorman.group.gets("guest3")
    doorman.alice.says("/stats")
    assert (await doorman.alice.chat.gets()).text


@pytest.mark.parametrize(
    "first", ["name=mallory", "/start", "/help", "/settings", "/stats", "/continue", "/export"]
)
async def test_b5_a_stranger_gets_one_polite_reply_and_no_answer(doorman, first):
    mallory = Person(doorman.api, "Alice", username="alice")
    mallory.says(first)
    reply = await mallory.chat.gets()
    for text in ("name=mallory", "/start", "/settings", "/new", "/retry"):
        mallory.says(text)
    mallory.edits(mallory.says("name=mallory tokens=2"), "name=mallory tokens=3")
    await doorman.quiet()
    doorman.alice.says("name=after")  # what came before has been handled
    await doorman.alice.chat.gets("after5")
    assert mallory.chat.answers == [reply]
    assert len(doorman.api.calls_of(*COUNTED, chat=mallory.id)) == 1
    assert doorman.asked_about("mallory") == []
    assert str(mallory.id) in reply.text  # what an owner needs to let them in


async def test_b5_a_command_for_another_bot_is_not_answered_by_this_one(doorman):
    group = Group(doorman.api)
    Person(doorman.api).says("/start@another_bot", place=group)
    doorman.alice.says("name=after")
    await doorman.alice.chat.gets("after5")
    await doorman.quiet()
    assert group.answers == []


async def test_b5_other_groups_channels_and_edits_are_not_answered(doorman):
    api = doorman.api
    mallory, group, channel = Person(api, "Mallory"), Group(api), Group(api, type_="channel")
    mallory.says("@fst_bot name=mallory", place=group)
    mallory.says("/start@fst_bot", place=group)
    mallory.says("@fst_bot name=mallory", place=channel)
    posted = doorman.alice.says("@fst_bot name=edited", place=doorman.group)
    await doorman.group.gets("edited5")
    doorman.alice.edits(posted, "@fst_bot name=twice", place=doorman.group)
    doorman.alice.says("name=after")
    await doorman.alice.chat.gets("after5")
    await doorman.quiet()
    assert doorman.asked_about("mallory") == doorman.asked_about("twice") == []
    assert len(group.answers) <= 1
    assert channel.answers == []


async def test_b5_a_group_is_answered_only_when_the_bot_is_meant(doorman):
    alice, group = doorman.alice, doorman.group
    alice.says("name=overheard", place=group)
    alice.says("@fst_bots name=overheard", place=group)
    alice.says("@fst_bot name=called", place=group)
    answer = await group.gets("called5")
    assert answer.reply_to is not None
    alice.says("name=replied", place=group, reply_to=answer)
    await group.gets("replied5")
    alice.says("name=overheard", place=group, reply_to=alice.says("something", place=group))
    alice.says("/help@other_bot", place=group)
    alice.says("name=after")
    await alice.chat.gets("after5")
    await doorman.quiet()
    assert doorman.asked_about("overheard") == []


async def test_b5_an_allowed_group_that_becomes_a_supergroup_is_still_allowed(doorman):
    alice = Person(doorman.api)
    new = doorman.group.becomes()
    alice.says("@fst_bot name=upgraded", place=new)
    await new.gets("upgraded5", seconds=10)


# B6: a crowd


async def test_b6_a_hundred_messages_at_once_are_one_answer_and_one_in_line(crowd):
    alice, bob = Person(crowd.api), Person(crowd.api, "Bob")
    for n in range(100):  # a busy machine reads them all before the first is answered
        alice.says(f"tokens=200 speed=20 name=flood{n}x")
    bob.says("tokens=3 name=calm")
    began = crowd.api.now()
    answer = await bob.chat.gets("calm3")
    assert answer.at - began < 40  # of a clock ten times faster
    await alice.chat.gets("flood0x200")
    await alice.chat.gets("flood1x200")
    alice.says("tokens=3 name=floodends")
    await alice.chat.gets("floodends3")  # whatever else waited in line would come before
    asked = [r["prompt"][-1][1].split("name=")[1] for r in crowd.asked_about("name=flood")]
    assert asked == ["flood0x", "flood1x", "floodends"]
    first, second, _ = crowd.asked_about("name=flood")
    assert second["times"]["asked"] >= first["times"]["ended"]
    assert crowd.api.pace.violations == []
    assert len(crowd.api.calls_of(*COUNTED, chat=alice.id)) < 50


async def test_b6_a_hundred_commands_at_once_do_not_fill_a_chat(crowd):
    alice = Person(crowd.api)
    began = crowd.api.now()
    for _ in range(100):
        alice.says("/help")
    alice.says("tokens=3 name=afterwards")
    answer = await alice.chat.gets("afterwards3")
    assert answer.at - began < 60  # not a hundred seconds behind the replies
    assert len(crowd.api.calls_of("sendMessage", chat=alice.id)) < 20


# B7: an engine that fails


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("failure", ["busy", "broken", "wrong", "unsupported", "bug"])
async def test_b7_an_engine_that_fails_is_told_in_a_few_words(crowd, failure, language):
    alice = Person(crowd.api, language=language)
    alice.says(f"fail={failure}")
    notice = await alice.chat.gets()
    assert len(notice.text) < 300
    for secret in ("10.1.2.3", "sk-0123", "Traceback", "Error", "http"):
        assert secret not in notice.text
    assert bool(re.search("[\u0410-\u044f]", notice.text)) == (language == "ru")
    alice.says("name=again")  # the bot lives, and the person is not held back
    await alice.chat.gets("again5")


async def test_b7_what_was_written_before_a_failure_is_kept_and_marked(crowd):
    alice = Person(crowd.api)
    alice.says("tokens=40 name=partial after=20 fail=broken")
    await alice.chat.gets("partial20")
    await crowd.quiet()
    shown = "".join(m.text for m in alice.chat.answers)
    assert shown.count("partial20") == 1
    assert "partial21" not in shown
    assert len(shown) > len(asked_last(crowd, "partial")["text"]) + 10  # it is marked
    assert "10.1.2.3" not in shown


@pytest.mark.parametrize("text", ["nothing", "spaces"])
async def test_b7_an_answer_without_a_text_is_told(crowd, text):
    alice = Person(crowd.api)
    alice.says(f"say={text}")
    assert (await alice.chat.gets()).text.strip()
    assert 400 not in {c.status for c in crowd.api.calls_of(chat=alice.id)}


async def test_b7_an_engine_that_says_nothing_for_two_minutes_is_given_up(fast):
    alice = Person(fast.api)
    alice.says("tokens=3 after=2 fail=hang name=silent")
    began = fast.api.now()
    answer = await alice.chat.gets("silent2")
    assert fast.api.now() - began >= 119
    assert len(answer.text) > len("silent1 silent2 ")  # with a notice
    (asked,) = fast.asked_about("name=silent")
    assert asked["event"] == "left"
    alice.says("name=again")
    await alice.chat.gets("again5")


# B8: see also the tests of processes that are killed


@pytest.mark.parametrize(
    "answer", [{"status": 502}, {"status": 409}, {"status": 200, "body": '{"ok": tr'}]
)
async def test_b8_updates_are_asked_for_again_when_telegram_fails(fast, answer):
    alice = Person(fast.api)
    fast.api.refuse("getUpdates", times=2, **answer)
    first, second = f"first{alice.id}x", f"second{alice.id}x"
    alice.says(f"name={first}")  # ends the call that waits; the next ones fail
    await until(fast.api, lambda: not fast.api.refusals, "two failures")
    alice.says(f"name={second}")
    await alice.chat.gets(f"{second}5")
    assert [len(fast.asked_about(name)) for name in (first, second)] == [1, 1]


async def test_b8_an_update_that_comes_twice_is_handled_once(crowd):
    alice = Person(crowd.api)
    alice.says("tokens=2 name=once")
    update = max(crowd.api.updates.items())[1]
    await alice.chat.gets("once2")
    crowd.api.tell_raw(update)
    alice.says("tokens=2 name=after")
    await alice.chat.gets("after2")
    assert len(crowd.asked_about("name=once")) == 1


async def test_b8_what_no_bot_knows_does_no_harm(crowd):
    alice = Person(crowd.api)
    deep = {"type": "paragraph", "text": "x"}
    for _ in range(16):
        deep = {"type": "blockquote", "blocks": [deep]}
    allowed, crowd.api.allowed = crowd.api.allowed, None
    began = time.process_time()
    chat, date = alice.chat.described(), 1_790_000_000
    head = {"message_id": 1, "date": date, "chat": chat, "from": alice.user}
    rich = {"update_id": 1, "message": {**head, "rich_message": {"blocks": [deep]}}}
    Update.model_validate(rich)
    assert time.process_time() - began < 0.1  # as aiogram reads it
    query = {"from": alice.user, "chat_instance": "1"}
    for said in (
        {"telepathy": {"thought": "hm"}},
        {"message": {**head, "rich_message": {"blocks": [deep]}}},
        {"message": {"message_id": "x"}},
        {"message": {**head, "sticker": {}}},
        {"message": {**head, "voice": {"file_id": "a", "file_unique_id": "b", "duration": 1}}},
        {"message": {**head, "photo": []}},
        {"callback_query": {**query, "id": "1", "data": "\u0000:;{}"}},
        {"callback_query": {**query, "id": "2", "data": "set:temperature:inf"}},
        {},
    ):  # fmt: skip
        crowd.api.tell_raw({"update_id": crowd.api.next_id("update"), **said})
    crowd.api.allowed = allowed
    alice.says("tokens=2 name=alive")
    await alice.chat.gets("alive2")
    assert crowd.process.poll() is None
    await until(crowd.api, lambda: not crowd.api.updates, "all are confirmed")


# B9: stops, and chats that are closed


async def test_b9_a_command_stops_an_answer_and_leaves_what_there_is(crowd):
    alice = Person(crowd.api)
    alice.says("tokens=4000 speed=20 name=stop")
    await alice.chat.sees("stop9 ")
    alice.says("/stop")
    began = crowd.api.now()
    await alice.chat.gets("stop9 ")
    (asked,) = crowd.asked_about("name=stop")
    assert asked["event"] == "left"
    assert asked["times"]["left"] - began < 10  # of a clock ten times faster: one second
    shown = "".join(m.text for m in alice.chat.answers)
    assert bare(asked["text"]) in bare(shown)


async def test_b9_in_a_group_everybody_stops_what_is_their_own(crowd):
    alice, bob, group = Person(crowd.api), Person(crowd.api, "Bob"), Group(crowd.api)
    alice.says("@fst_bot tokens=4000 speed=20 name=hers", place=group)
    await group.sees("hers1 ")
    bob.says("/stop@fst_bot", place=group)
    await group.gets(lambda m: m.reply_to and group.messages[m.reply_to].sender == bob.user)
    assert asked_last(crowd, "hers")["event"] == "first"
    alice.says("/stop@fst_bot", place=group)
    await until(crowd.api, lambda: asked_last(crowd, "hers")["event"] == "left", "the end")


async def test_b9_the_button_of_a_draft_stops_an_answer(crowd):
    alice = Person(crowd.api)
    alice.says("tokens=4000 speed=20 name=press")
    draft = await alice.chat.drafted("press9 ")
    alice.stops(draft)
    began = crowd.api.now()
    await alice.chat.gets("press9 ")
    (asked,) = crowd.asked_about("name=press")
    assert asked["event"] == "left"
    assert asked["times"]["left"] - began < 10
    alice.says("name=next")
    await alice.chat.gets("next5")


async def test_b9_a_command_stops_what_waits_in_line(crowd):
    alice = Person(crowd.api)
    alice.says("fail=hang name=hanging")
    await until(crowd.api, lambda: crowd.asked_about("name=hanging"), "a request")
    alice.says("name=inline")
    alice.says("/stop")
    await crowd.quiet()
    assert [r["event"] for r in crowd.asked_about("name=hanging")] == ["left"]
    assert crowd.asked_about("name=inline") == []


@pytest.mark.parametrize("where", ["private", "group"])
@pytest.mark.parametrize("how", ["blocked", "gone"])
async def test_b9_a_chat_that_is_closed_ends_its_answer_and_is_not_called_again(crowd, how, where):
    alice = Person(crowd.api)
    place = alice.chat if where == "private" else Group(crowd.api)
    name = f"{how}{where}"
    alice.says(f"@fst_bot tokens=4000 speed=20 name={name}", place=place)
    await place.sees(f"{name}1 ")
    place.chat.gone = how == "gone"
    place.chat.blocked = "bot was blocked by the user" if how == "blocked" else None
    closed = crowd.api.now()
    await until(crowd.api, lambda: asked_last(crowd, name)["event"] == "left", "the end")
    calls = crowd.api.calls_of(*COUNTED, chat=place.id, since=closed)
    assert asked_last(crowd, name)["times"]["left"] - calls[0].at < 10
    await crowd.quiet()
    assert len(crowd.api.calls_of(*COUNTED, chat=place.id, since=closed)) <= 2


async def test_b9_a_group_that_becomes_a_supergroup_goes_on_there(crowd):
    alice, group = Person(crowd.api), Group(crowd.api)
    alice.says("@fst_bot tokens=3 name=old", place=group)
    await group.gets("old3")
    alice.says("@fst_bot tokens=4000 speed=20 name=move", place=group)
    await group.sees("move1 ")
    new = group.becomes()
    moved = crowd.api.now()
    await until(crowd.api, lambda: asked_last(crowd, "move")["event"] == "left", "the end")
    alice.says("@fst_bot name=new", place=new)
    await new.gets("new5")
    await crowd.quiet()
    assert len(crowd.api.calls_of(*COUNTED, chat=group.id, since=moved)) <= 2
    turns = [content for _, content in crowd.asked_about("name=new")[-1]["prompt"]]
    assert "tokens=3 name=old" in turns  # what was said in the group is not forgotten
