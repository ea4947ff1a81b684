"""The readers `telegram` and `whatsapp`: conversations out of exported chats."""
# ruff: noqa: RUF001  # digits and letters of other scripts are meant

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import pytest
from document_files import IOS, chat, export, reader, said
from pydantic import ValidationError

from fst_core import Message
from fst_core.errors import DocumentError
from fst_core.testing import ReaderContract


def turns(document):
    return [(message.role, message.content) for message in document.messages]


def conversations(use, **settings):
    built = reader(use, **settings)
    found = [turns(document) for document in built.read("train")]
    return found, built.report().dropped


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# telegram


class TestTelegram(ReaderContract):
    use = "telegram"
    settings = {"train": "result.json", "valid": "other.json", "me": "Ann"}

    def write(self, folder):
        export(folder / "result.json", chat(said("Bob", "hi", 0), said("Ann", "hello", 1)))
        export(folder / "other.json", chat(said("Bob", "hi", 0), said("Ann", "good day", 1)))

    def change(self, folder):
        export(folder / "result.json", chat(said("Bob", "hi", 0), said("Ann", "changed", 1)))


def test_my_messages_are_the_assistants_and_windows_end_in_silence(folder):
    export(
        folder / "result.json",
        chat(
            said("Bob", "hi", 0),
            said("Bob", "are you there?", 1),
            said("Ann", "yes", 2),
            said("Ann", "what is it?", 3),
            said("Bob", "nothing", 182),  # a gap of 179 minutes
            said("Bob", "good morning", 363),  # of 181
            said("Ann", "morning!", 364),
            said("Bob", "anybody?", 1000),
        ),
    )
    first = [
        ("user", "hi\nare you there?"),
        ("assistant", "yes\nwhat is it?"),
        ("user", "nothing"),
    ]
    second = [("user", "good morning"), ("assistant", "morning!")]
    found, dropped = conversations("telegram", train="result.json", me="Ann")
    assert found == [first, second]
    assert dropped == {"conversations without a message of mine": 1}
    assert conversations("telegram", train="result.json", me="user65")[0] == [first, second]
    found, _ = conversations("telegram", train="result.json", me="Ann", gap_hours=4)
    assert found == [[*first[:2], ("user", "nothing\ngood morning"), ("assistant", "morning!")]]


def test_forwards_services_and_what_has_no_text_are_dropped_and_counted(folder):
    styled = ["see ", {"type": "link", "text": "https://x.org"}, {"type": "bold", "text": " now"}]
    export(
        folder / "result.json",
        chat(
            {"id": 1, "type": "service", "date": "2020-01-01T00:00:00", "action": "phone_call"},
            said("Bob", styled, 0),
            said("Bob", "somebody's words", 1, forwarded_from="News"),
            said("Bob", "of a deleted account", 1, forwarded_from=None),
            said("Bob", "", 2, photo="photos/1.jpg"),
            said("Bob", [], 2, sticker_emoji="😀"),
            said("Ann", "  ok\n", 3),
        ),
    )
    found, dropped = conversations("telegram", train="result.json", me="Ann")
    assert found == [[("user", "see https://x.org now"), ("assistant", "ok")]]
    assert dropped == {
        "service messages": 1,
        "forwarded messages": 2,
        "messages without text": 2,
    }


def test_a_full_export_is_read_chat_by_chat(folder):
    group = chat(
        said("Bob", "lunch?", 0),
        said("Cid", "yes", 1),
        said("Ann", "where?", 2),
        said("Bob", "there", 3),
        name="Office",
        kind="private_group",
    )
    export(
        folder / "result.json",
        chat(said("Bob", "hi", 0), said("Ann", "hello", 1)),
        group,
        chat(name="empty"),
        personal_information={"phone": ["1", {"x": 2.5}]},
        left_chats={"list": [chat(said("Ann", "bye", 0), name="Old")]},
    )
    built = reader("telegram", train="result.json", me="Ann")
    documents = list(built.read("train"))
    personal = [("user", "hi"), ("assistant", "hello")]
    in_group = [("user", "lunch?\nyes"), ("assistant", "where?"), ("user", "there")]
    assert [turns(d) for d in documents][-2:] == [personal, in_group]
    assert turns(documents[0]) == [("assistant", "bye")]
    assert documents[2].source == "result.json: Office, message 0"
    found, _ = conversations("telegram", train="result.json", me="Ann", names=True)
    assert found[1] == personal  # names are shown in groups alone
    assert found[2] == [
        ("user", "Bob: lunch?\nCid: yes"),
        ("assistant", "where?"),
        ("user", "Bob: there"),
    ]


def test_a_wrong_name_lists_the_authors_most_frequent_first(folder):
    messages = [said("Bob", "x", n) for n in range(3)] + [said("Cid", "y", 4)]
    export(folder / "result.json", chat(*messages, said("Ann", "z", 5)))
    with pytest.raises(DocumentError) as raised:
        conversations("telegram", train="result.json", me="Anne")
    assert str(raised.value) == (
        "result.json: 'Anne' wrote nothing here. Set `me` to one of: Bob (3), Cid (1), Ann (1)"
    )


def test_windows_neither_overlap_nor_lose_a_message(folder):
    rng = random.Random(228)
    for _ in range(50):
        minutes, messages = 0, []
        for number in range(rng.randint(1, 60)):
            minutes += rng.choice([0, 1, 100, 179, 180, 181, 5000])
            messages.append(said(rng.choice(["Ann", "Bob", "Cid"]), f"m{number}", minutes))
        messages.append(said("Ann", "last", minutes))
        export(folder / "result.json", chat(*messages))
        found, _ = conversations("telegram", train="result.json", me="Ann")
        words = " ".join(text for window in found for _, text in window).split()
        assert len(words) == len(set(words))
        kept = [m["text"] for m in messages if m["text"] in set(words)]
        assert words == kept
        mine = {m["text"] for m in messages if m["from"] == "Ann"}
        assert mine <= set(words)
        assert all(a[0] != b[0] for window in found for a, b in pairwise(window))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged JSON at character 1: '' instead of '{'"),
        ("[]", "damaged JSON at character 1: '[' instead of '{'"),
        ('{"a": 1}', "no chats here. Export them in Telegram Desktop as machine-readable JSON"),
        ('{"messages": [{"type": "message", "text": "a"', "damaged JSON at character 15: "),
        ('{"messages": [1]}', " a chat: a message that is not an object"),
        ('{"messages": [{"type": "message", "text": "a"}]}', " a chat, message None: no date"),
        ('{"messages" 5', "damaged JSON at character 13: '5' instead of ':'"),
        ('{"messages": {}}', "damaged JSON at character 14: '{' instead of '['"),
        ("{5: 5}", "damaged JSON at character 3: a key that is not a string"),
        ('{"a": ' + "[" * 100_000, "damaged JSON at character 7: "),
        ('{"messages": []}', "'Ann' wrote nothing here. Set `me` to one of: nobody"),
    ],
    ids=lambda value: value[:25],
)
def test_a_broken_export_is_told(folder, content, message):
    (folder / "a.json").write_text(content)
    with pytest.raises(DocumentError) as raised:
        conversations("telegram", train="a.json", me="Ann")
    assert str(raised.value).startswith(f"a.json: {message.strip()}")
    built = reader("telegram", train="a.json", me="Ann", on_error="skip")
    assert list(built.read("train")) == []
    assert built.report().dropped["broken files"] == 1


@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096])
def test_an_export_is_the_same_whatever_the_chunks(folder, chunk_bytes):
    messages = [said("Ann" if n % 3 else "Bob", f'text {n} Ё 😀 \\ "', n) for n in range(200)]
    export(folder / "result.json", chat(*messages), chat(*messages), numbers=[1, 22, 333.5e3, -4])
    built = reader("telegram", train="result.json", me="Ann")
    expected = list(built.read("train"))
    built.chunk_bytes = chunk_bytes
    assert list(built.read("train")) == expected
    assert len(expected) == 2


def test_the_memory_of_an_export_does_not_grow_with_it(folder):
    messages = [said("Ann" if n % 2 else "Bob", "word " * 100, 200 * n) for n in range(8_000)]
    export(folder / "result.json", chat(*messages))
    assert (folder / "result.json").stat().st_size > 5e6
    tracemalloc.start()
    try:
        count = sum(1 for _ in reader("telegram", train="result.json", me="Ann").read("train"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4_000
    assert peak < 2e6


def test_half_a_character_is_a_reading_error_or_mended(folder):
    export(folder / "a.json", chat(said("Bob", "hi XXX", 0), said("Ann", "yes", 1)))
    text = (folder / "a.json").read_text()
    (folder / "a.json").write_text(text.replace("XXX", "\\ud83d"))
    with pytest.raises(
        DocumentError, match=r"^a\.json: Bob, message 0: the text holds \\ud83d, half a character"
    ):
        conversations("telegram", train="a.json", me="Ann")
    found, dropped = conversations("telegram", train="a.json", me="Ann", encoding_errors="replace")
    assert found == [[("user", "hi \ufffd"), ("assistant", "yes")]]
    assert dropped == {"undecodable places": 1}


# whatsapp

ANDROID = """12/31/20, 9:00 AM - Messages and calls are end-to-end encrypted. Tap to learn more.
12/31/20, 11:58 PM - Bob: hi: how are you?
a second line

[and a third]
12/31/20, 11:59 PM - Ann: fine
12/31/20, 11:59 PM - Ann: <Media omitted>
1/1/21, 12:00 AM - Ann: happy new year! <This message was edited>
1/1/21, 12:00 AM - Bob: IMG-20210101-WA0001.jpg (file attached)
1/1/21, 12:01 AM - Bob: you too
1/1/21, 12:01 AM - Bob: This message was deleted
"""
EXPECTED = [
    ("user", "hi: how are you?\na second line\n\n[and a third]"),
    ("assistant", "fine\nhappy new year!"),
    ("user", "you too"),
]


class TestWhatsapp(ReaderContract):
    use = "whatsapp"
    settings = {"train": "_chat.txt", "me": "Ann"}

    def write(self, folder):
        (folder / "_chat.txt").write_text(IOS)

    def change(self, folder):
        (folder / "_chat.txt").write_text(IOS.replace("fine", "changed"))


@pytest.mark.parametrize(
    ("export_", "dropped"),
    [
        (IOS, {"service messages": 1, "messages without text": 2}),
        (ANDROID, {"service messages": 1, "messages without text": 3}),
    ],
    ids=["ios", "android"],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_chat_is_read_as_ios_and_android_write_it(folder, export_, dropped, ends):
    (folder / "_chat.txt").write_bytes(("\ufeff" + export_).replace("\n", ends).encode())
    found, counted = conversations("whatsapp", train="_chat.txt", me="Ann")
    assert found == [EXPECTED]
    assert counted == dropped
    [document] = reader("whatsapp", train="_chat.txt", me="Ann").read("train")
    assert document.source == "_chat.txt:2"


def test_what_is_no_text_has_one_name_whoever_wrote_it_down(folder):
    """Systems and languages write it in their own ways; the program's own messages are others."""
    sent = [
        "<Media omitted>", "\u200eimage omitted", "\u200eBild weggelassen", "\u200eGIF отсутствует",
        "\u200eContact card omitted", "\u200e<attached: 12-PHOTO.jpg>", "\u200eMissed voice call",
        "IMG-1.jpg (file attached)", "null", "\u200eThis message was deleted.", "",
    ]  # fmt: skip
    service = [
        "Lunch: \u200eAnn created this group", "Lunch: \u200eYou were added", "Ann: \u200eAnn left",
        "Bob: \u200eYour security code with Bob changed.",
        "Lunch: \u200eMessages and calls are end-to-end encrypted. Nobody can read them.",
    ]  # fmt: skip
    lines = ["Ann: hi", "Bob: hi", *service, *(f"Bob: {each}" for each in sent), "Ann: bye"]
    (folder / "c.txt").write_text("\n".join(f"[31.12.20, 10:00:00] {line}" for line in lines))
    found, dropped = conversations("whatsapp", train="c.txt", me="Ann")
    assert found == [[("assistant", "hi"), ("user", "hi"), ("assistant", "bye")]]
    assert dropped == {"messages without text": len(sent), "service messages": len(service)}


HEADS = {
    "en-us android": ("12/31/20, 11:59 PM - ", "1/1/21, 12:01 AM - "),
    "en-us android, narrow space": ("12/31/20, 11:59\u202fPM - ", "1/1/21, 12:01\u202fAM - "),
    "en-gb android": ("31/12/2020, 23:59 - ", "01/01/2021, 00:01 - "),
    "en-in android": ("31/12/20, 11:59 pm - ", "01/01/21, 12:01 am - "),
    "en-ca ios": ("[2020-12-31, 11:59:00 PM] ", "[2021-01-01, 12:01:00 AM] "),
    "en-gb ios": ("[31/12/2020, 23:59:00] ", "[01/01/2021, 00:01:00] "),
    "de android": ("31.12.20, 23:59 - ", "01.01.21, 00:01 - "),
    "de ios": ("[31.12.20, 23:59:00] ", "[01.01.21, 00:01:00] "),
    "ru android": ("31.12.2020, 23:59 - ", "01.01.2021, 00:01 - "),
    "es android": ("31/12/20 23:59 - ", "1/1/21 0:01 - "),
    "es ios": ("[31/12/20, 11:59:00 p.\xa0m.] ", "[1/1/21, 12:01:00 a.\xa0m.] "),
    "fr android": ("31/12/2020 à 23:59 - ", "01/01/2021 à 00:01 - "),
    "fi android": ("31.12.2020 klo 23.59 - ", "1.1.2021 klo 0.01 - "),
    "nl android": ("31-12-2020 23:59 - ", "01-01-2021 00:01 - "),
    "cs android": ("31. 12. 2020 23:59 - ", "1. 1. 2021 0:01 - "),
    "ja android": ("2020/12/31 23:59 - ", "2021/01/01 0:01 - "),
    "ja ios": ("[2020/12/31 午後11:59:00] ", "[2021/01/01 午前12:01:00] "),
    "ko android": ("2020. 12. 31. 오후 11:59 - ", "2021. 1. 1. 오전 12:01 - "),
    "zh ios": ("[2020/12/31 下午11:59:00] ", "[2021/1/1 上午12:01:00] "),
    "ar android": ("\u200f31\u200f/12\u200f/2020، 11:59 م - ", "\u200f1\u200f/1\u200f/2021، 12:01 ص - "),
    "ar android, own digits": ("٣١/١٢/٢٠٢٠، ١١:٥٩ م - ", "١/١/٢٠٢١، ١٢:٠١ ص - "),
    "he android": ("31.12.2020, 23:59 - ", "1.1.2021, 0:01 - "),
}  # fmt: skip  # a table


@pytest.mark.parametrize("locale", HEADS)
def test_dates_of_many_locales_are_understood(folder, locale):
    """The two messages are two minutes apart, over the end of a year."""
    before, after = HEADS[locale]
    (folder / "c.txt").write_text(f"{before}Bob: one\n{after}\u202aAnn\u202c: two\n")
    near = {"train": "c.txt", "me": "Ann", "gap_hours": 2.1 / 60}
    assert conversations("whatsapp", **near)[0] == [[("user", "one"), ("assistant", "two")]]
    far = {"train": "c.txt", "me": "Ann", "gap_hours": 1.9 / 60}
    found, dropped = conversations("whatsapp", **far)
    assert found == [[("assistant", "two")]]
    assert dropped == {"conversations without a message of mine": 1}


def test_ambiguous_dates_follow_time_and_may_be_said(folder):
    days = ["01/02/21", "01/03/21", "01/04/21", "02/01/21"]  # months first: three days, a month
    lines = [f"{day}, 10:0{n} - {'Ann' if n % 2 else 'Bob'}: m{n}" for n, day in enumerate(days)]
    (folder / "c.txt").write_text("\n".join(lines))
    assert len(conversations("whatsapp", train="c.txt", me="Ann", gap_hours=25)[0]) == 2
    near = {"train": "c.txt", "me": "Ann", "gap_hours": 32 * 24}
    assert len(conversations("whatsapp", **near, dates="month")[0]) == 1
    assert len(conversations("whatsapp", **near, dates="day")[0]) == 1


def test_names_are_shown_in_groups_when_asked(folder):
    (folder / "c.txt").write_text(
        "31.12.20, 10:00 - Ann created group “Lunch”\n31.12.20, 10:00 - ~\u202fBob B: hungry\n"
        "31.12.20, 10:01 - +49 170 1: me too\n31.12.20, 10:02 - Ann: go"
    )
    settings = {"train": "c.txt", "me": "Ann"}
    assert conversations("whatsapp", **settings)[0] == [
        [("user", "hungry\nme too"), ("assistant", "go")]
    ]
    assert conversations("whatsapp", **settings, names=True)[0] == [
        [("user", "Bob B: hungry\n+49 170 1: me too"), ("assistant", "go")]
    ]


def test_a_wrong_name_or_another_file_is_told(folder):
    (folder / "c.txt").write_text(ANDROID)
    with pytest.raises(DocumentError, match=r"^c\.txt: 'ann' wrote nothing here.*: Bob \(4\), Ann"):
        conversations("whatsapp", train="c.txt", me="ann")
    (folder / "c.txt").write_text("Dear diary,\n31.12.20 was a good day - really: good\n")
    with pytest.raises(
        DocumentError, match=r"^c\.txt: no messages here, as WhatsApp exports them$"
    ):
        conversations("whatsapp", train="c.txt", me="Ann")


@pytest.mark.parametrize("use", ["telegram", "whatsapp"])
@pytest.mark.parametrize("wrong", [{"me": ""}, {"gap_hours": 0}, {}])
def test_settings_of_chats_are_checked(use, wrong):
    with pytest.raises(ValidationError):
        reader(use, train="a", **({"me": "Ann", **wrong} if wrong else {}))


def test_messages_are_those_that_every_reader_yields(folder):
    (folder / "c.txt").write_text(IOS)
    [document] = reader("whatsapp", train="c.txt", me="Ann").read("train")
    assert document.messages[2] == Message("user", "you too")
    assert document.text is None
