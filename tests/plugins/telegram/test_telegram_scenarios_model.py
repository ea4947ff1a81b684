"""The bot of `telegram` with a real model: a conversation from the start to the next training."""

from __future__ import annotations

import json

import pytest
from bot_api_texts import accepted
from bot_process import BotProcess
from click.testing import CliRunner
from fakes import spawn
from fakes.tiny import make, tiny
from people import Person, until


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model that continues texts, made by `fst run`."""
    place = tmp_path_factory.mktemp("model")
    # A model that has learned little may end a text before it begins, once in 259 times.
    never_ends = 'sampler=[{use = "standard", logit_bias = {257 = -100}}]'
    done = make(place, tiny("model.n_positions=4200", never_ends))
    assert done.status == 0, done.err
    return place


def as_shown(text):
    """Return a text as Telegram shows it: a model that has learned little writes control characters."""
    return accepted(text, [], None)[0]


async def pressed(person, menu, button):
    """Press a button of a menu, and wait until the menu has changed."""
    before = list(menu.buttons)
    person.presses(menu, button)
    await until(person.api, lambda: menu.buttons != before, "another menu")


async def liked(person, answer):
    """Press the thumb under an answer, and wait until it is marked."""
    person.presses(answer, "👍")
    await until(person.api, lambda: any("✓" in text for text, _ in answer.buttons), "a vote")


@pytest.mark.slow
async def test_a_conversation_from_the_start_over_a_power_cut_to_the_next_training(
    place, tmp_path, monkeypatch
):
    model = place / "runs/tiny/1/model"
    settings = {"public": True, "max_new_tokens": 32, "max_new_tokens_bound": 4096}
    engine = {"stall_seconds": 1000}  # of a clock that runs faster than this machine
    async with BotProcess(tmp_path, scale=5, target=model, engine=engine, **settings) as bot:
        alice = Person(bot.api)
        alice.says("/start")
        assert "/help" in (await alice.chat.gets()).text
        assert set(bot.api.commands[""]) >= {
            "help",
            "new",
            "stop",
            "settings",
            "retry",
            "continue",
            "export",
        }
        assert set(bot.api.commands["ru"]) == set(bot.api.commands[""])

        # Continue: the text in bold, what the model makes of it, and a button for another try.
        alice.says("roses are")
        first = await alice.chat.gets(lambda m: m.buttons)
        assert first.text.startswith("roses are")
        assert len(first.text) > len("roses are")
        bold = [(e["offset"], e["length"]) for e in first.entities if e["type"] == "bold"]
        assert bold == [(0, 9)]
        alice.presses(first, "Repeat")
        again = await alice.chat.gets(lambda m: m.buttons and m is not first)
        assert again.text.startswith("roses are")
        alice.says("/continue")
        more = await alice.chat.gets(lambda m: m.buttons and m is not again)
        assert more.text

        # Settings: careful, and as long as can be; then what is long is stopped.
        alice.says("/settings")
        menu = await alice.chat.gets(lambda m: m.buttons)
        for value in (0.8, 0.6, 0.4, 0.2, 0):
            await pressed(alice, menu, f"choose:temperature:{value:g}")
        for value in (64, 128, 256, 512, 1024, 2048, 4096):
            await pressed(alice, menu, f"choose:length:{value}")
        alice.says("violets are")
        await alice.chat.sees("violets are")
        alice.says("/stop")
        stopped = await alice.chat.gets(lambda m: m.buttons and m.text.startswith("violets are"))
        assert "Stopped." in stopped.text
        assert len(stopped.text) < 4000
        alice.says("/settings")
        menu = await alice.chat.gets(lambda m: m.buttons)
        chosen = list(menu.buttons)

        await bot.kill()
        await bot.start()

        alice.says("/settings")
        assert (await alice.chat.gets(lambda m: m.buttons)).buttons == chosen
        alice.says("/export")
        exported = await alice.chat.gets(lambda m: m.document)
        texts = [json.loads(line)["text"] for line in exported.content.decode().splitlines()]
        assert as_shown(texts[0]) == again.text
        assert any(text.startswith("violets are") for text in texts)
        await liked(alice, first)

        # The same model in a conversation, which is remembered as one.
        alice.says("/settings")
        menu = await alice.chat.gets(lambda m: m.buttons)
        await pressed(alice, menu, "Defaults")
        await pressed(alice, menu, "choose:mode:chat")
        alice.says("hello there")
        talked = await alice.chat.gets(lambda m: m.buttons)
        await liked(alice, talked)
    assert bot.process.returncode == 0

    # What was liked is what the next training reads.
    from fst_telegram.command import command

    file = tmp_path / "liked.jsonl"
    done = CliRunner().invoke(command, ["export", str(tmp_path / "state.sqlite3"), str(file)])
    assert done.exit_code == 0, done.output
    said = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    (text,) = [document["text"] for document in said if "text" in document]
    assert as_shown(text) == first.text
    ((question, answer),) = [document["messages"] for document in said if "messages" in document]
    assert question == {"role": "user", "content": "hello there"}
    assert answer["role"] == "assistant"
    assert as_shown(answer["content"]) == talked.text
    monkeypatch.chdir(place)
    settings = [
        "documents.use=jsonl",
        f"documents.train={file}",
        "run.name=liked",
        "dataset.min_sample_length=2",
    ]
    done = spawn(
        "run", "pipeline.toml", *(part for s in settings for part in ("-s", s)), timeout=120
    )
    assert done.status == 0, done.err
    (again := tmp_path / "again").mkdir()
    model = place / "runs/liked/1/model"
    async with BotProcess(
        again, scale=5, target=model, engine=engine, public=True, max_new_tokens=8
    ) as bot:
        bob = Person(bot.api, "Bob")
        bob.says("hello there")
        await bob.chat.gets()
