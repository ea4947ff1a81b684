"""The page in a real browser: Chromium without a window, over the real server."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serving import KEY, ScriptedEngine, Server, until

from fst_core import Message
from fst_core.errors import EngineBusy, FstError, UnsupportedParameter

SEND = (Keys.CONTROL, Keys.ENTER)


@pytest.fixture(scope="module")
def chromium():
    """One browser for all tests; a machine that tests the page has one."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert binary is not None, "chromium is not installed: apt-get install chromium"
    assert driver is not None, "chromedriver is not installed: apt-get install chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900",
        "--disable-background-networking", "--force-prefers-reduced-motion",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def server():
    with Server(ScriptedEngine()) as running:
        yield running


@pytest.fixture
def engine(server):
    """The engine of the server, which has forgotten what other tests did."""
    server.engine.__init__()
    return server.engine


@pytest.fixture
def opened(chromium, server, engine):
    """The page."""
    return Page(chromium, server)


@pytest.fixture
def page(opened):
    """The page, which asks nobody else and says no error in the console."""
    yield opened
    opened.assert_quiet()


class Page:
    """What a person sees and does."""

    def __init__(self, browser, server):
        self.browser, self.server = browser, server
        self.logs()
        self.open()

    def open(self):
        self.browser.get(f"{self.server.root}/")
        if not self.server.frontend.settings.key_env:
            self.loaded()

    def loaded(self):
        until(lambda: self.browser.find_elements(By.ID, "set-max_tokens"))

    def __getattr__(self, name):
        return self.browser.find_element(By.ID, name)

    @property
    def written(self):
        return self.text.get_property("value")

    def set(self, name, value):
        field = self.browser.find_element(By.ID, f"set-{name}")
        field.clear()
        field.send_keys(value)

    def ends(self):
        """Wait until nothing is being written."""
        until(self.write.is_displayed)

    def choose(self, mode):
        self.browser.execute_script(
            "document.querySelector(`[name=mode][value=${arguments[0]}]`).click()", mode
        )

    def turns_of(self, role):
        found = self.browser.find_elements(By.CSS_SELECTOR, f"#turns .{role}")
        return [item.text.partition("\n")[2] for item in found]

    def copied(self, button):
        """What a button puts into the clipboard."""
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        self.browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": permissions})
        button.click()
        until(lambda: self.status.text == "Copied.")
        return self.browser.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0])"
        )

    def logs(self):
        """What the console said and which addresses were asked, since the last call."""
        console = [(line["level"], line["message"]) for line in self.browser.get_log("browser")]
        events = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        asked = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return console, [each["request"]["url"] for each in asked]

    def assert_quiet(self, *, but=None):
        console, addresses = self.logs()
        assert [
            said for level, said in console if level == "SEVERE" and not (but and but in said)
        ] == []
        assert addresses
        assert {urlsplit(address).netloc for address in addresses} == {
            urlsplit(self.server.root).netloc
        }


def test_a_text_is_continued_while_it_is_written(page, engine):
    engine.pieces = [f" word{number}" for number in range(20)]
    engine.seconds = 0.1
    page.text.send_keys("To be", *SEND)
    seen = ["To be"]
    until(lambda: seen.append(page.written) or page.write.is_displayed())
    seen.append(page.written)
    assert seen[-1] == "To be" + "".join(engine.pieces)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    assert len(set(seen)) > 4
    assert page.figures.text.startswith("20 tokens, ")
    assert page.figures.text.endswith(" tokens/s")
    assert page.status.text == "The text is complete."
    [request] = engine.requests
    assert (request.prompt, request.max_new_tokens, request.parameters) == ("To be", 32, {})


def test_what_was_written_can_be_taken_back_and_heard(page, engine):
    page.text.send_keys("Once. ", *SEND)
    page.ends()
    assert page.written == "Once. Roses are red."
    heard = page.heard
    assert heard.get_attribute("role") == "log"
    assert heard.get_property("textContent") == "Roses are red.\n"
    page.back.click()
    assert page.written == "Once. "
    assert not page.back.is_enabled()


@pytest.mark.parametrize("way", ["button", "escape", "leaving"])
def test_stopping_cancels_the_request(page, engine, way):
    engine.pieces = [" on"] * 5000
    engine.seconds = 0.02
    page.set("max_tokens", "5000")
    page.text.send_keys("On", *SEND)
    until(lambda: page.written.endswith(" on on"))
    if way == "button":
        page.stop.click()
    elif way == "escape":
        page.text.send_keys(Keys.ESCAPE)
    else:
        page.open()
    until(lambda: engine.cancelled == engine.requests)
    assert len(engine.requests) == 1
    if way != "leaving":
        until(lambda: page.status.text == "Stopped.")
        assert page.figures.text.startswith("about ")
        stopped = page.written
        assert not page.text.get_property("readOnly")
        page.text.send_keys("!")
        assert page.written == stopped + "!"


def test_settings_of_the_samplers_reach_the_engine(page, engine):
    described = page.browser.find_element(By.ID, "about-top_k").text
    assert described == engine.describe()["sampling"]["top_k"]["description"]
    assert page.browser.find_element(By.ID, "set-temperature").get_property("value") == "0.8"
    page.set("temperature", "0.35")
    page.set("top_k", "7")
    page.set("logit_bias", '{"3": -1.5}')
    page.set("ignored_words", "thee\nthou")
    page.set("stop", "END\n\\n\\n")
    page.set("seed", "11")
    page.set("max_tokens", "2")
    page.text.send_keys("To be", *SEND)
    page.ends()
    [request] = engine.requests
    assert request.parameters == {
        "temperature": 0.35, "top_k": 7, "logit_bias": {"3": -1.5},
        "ignored_words": ["thee", "thou"],
    }  # fmt: skip
    assert (request.seed, request.max_new_tokens, request.stop) == (11, 2, ("END", "\n\n"))
    assert page.written == "To beRoses are "
    assert page.status.text.startswith("Paused")
    page.defaults.click()
    page.text.send_keys(*SEND)
    page.ends()
    assert engine.requests[-1].parameters == {}


def test_settings_of_a_third_party_have_inputs_of_their_kinds(page, engine):
    page.set("letter", "q")
    page.browser.find_element(By.ID, "set-case").send_keys("upper")
    page.browser.find_element(By.ID, "set-always").click()
    page.set("tokens", "3")
    look = page.browser.find_element(By.ID, "set-look")
    assert look.get_property("value") == ""
    look.send_keys('{"red": true}')
    page.text.send_keys(*SEND)
    page.ends()
    chosen = {
        "letter": "q", "case": "upper", "always": False, "tokens": 3, "look": {"red": True},
    }  # fmt: skip
    assert engine.requests[-1].parameters == chosen
    page.browser.find_element(By.ID, "set-tokens").clear()
    look.clear()
    page.text.send_keys(*SEND)
    page.ends()
    del chosen["tokens"], chosen["look"]
    assert engine.requests[-1].parameters == chosen


@pytest.mark.parametrize(
    ("name", "value"), [("top_p", "1.5"), ("max_tokens", "0"), ("logit_bias", "{")]
)
def test_a_setting_out_of_its_bounds_is_shown_and_not_sent(page, engine, name, value):
    page.set(name, value)
    page.text.send_keys(*SEND)
    assert page.browser.switch_to.active_element.get_attribute("id") == f"set-{name}"
    assert engine.requests == []


def test_a_conversation_is_kept_on_the_page(chromium):
    with Server(ScriptedEngine(chat="trained")) as server:
        page, engine = Page(chromium, server), server.engine
        until(page.turns.is_displayed)  # a model that learned to chat begins with it
        for words in ("Hello", "And you?"):
            page.text.send_keys(words, Keys.ENTER)
            page.ends()
        assert engine.requests[-1].prompt == (
            Message("user", "Hello"),
            Message("assistant", "Roses are red."),
            Message("user", "And you?"),
        )
        assert page.turns_of("user") == ["Hello", "And you?"]
        assert page.turns_of("assistant") == ["Roses are red."] * 2
        page.back.click()
        assert page.turns_of("user") == ["Hello"]
        assert page.written == "And you?"
        page.choose("prompt")
        assert page.written == ""
        assert not page.turns.is_displayed()
        page.assert_quiet()


def test_the_oldest_turns_of_a_long_conversation_are_left_out_until_a_new_one(page, engine):
    page.choose("chat")
    assert not page.new.is_enabled()
    for words in ("one " * 4, "two " * 4, "three " * 4):
        page.text.send_keys(words.strip(), Keys.ENTER)
        page.ends()
    assert len(page.browser.find_elements(By.CSS_SELECTOR, "#turns .forgotten")) == 4
    assert "oldest turns no longer fit" in page.status.text
    assert engine.requests[-1].prompt == (Message("user", ("three " * 4).strip()),)
    page.text.send_keys("a", Keys.ENTER)
    page.ends()
    assert engine.requests[-1].prompt == (Message("user", "a"),)
    page.text.send_keys("b", Keys.ENTER)
    page.ends()
    assert [m.content for m in engine.requests[-1].prompt] == ["a", "Roses are red.", "b"]
    page.new.click()
    assert page.turns_of("user") == []
    assert not page.back.is_enabled()
    assert page.browser.switch_to.active_element == page.text
    page.text.send_keys("c", Keys.ENTER)
    page.ends()
    assert engine.requests[-1].prompt == (Message("user", "c"),)


def test_an_engine_that_cannot_count_is_sent_the_whole_conversation(opened, engine):
    async def encode(prompt):
        raise UnsupportedParameter("prompt", "there is no tokenizer")

    opened.choose("chat")
    opened.text.send_keys("one " * 20, Keys.ENTER)
    opened.ends()
    engine.encode = encode
    engine.pieces = []
    try:
        opened.text.send_keys("two", Keys.ENTER)
        opened.ends()
    finally:
        del engine.encode
    assert len(engine.requests[-1].prompt) == 3
    opened.assert_quiet(but="status of 400")  # which the browser itself says


def test_the_reference_is_a_table_whose_columns_stand_apart(page):
    page.browser.get(f"{page.server.root}/docs")
    cell, head = (
        page.browser.find_element(By.CSS_SELECTOR, f"table {each}") for each in ("td", "th")
    )
    assert int(cell.value_of_css_property("padding-right").partition("px")[0].partition(".")[0]) > 8
    assert cell.value_of_css_property("text-align") == head.value_of_css_property("text-align")


def test_the_icon_is_the_page_s(page):
    icon = page.browser.find_element(By.CSS_SELECTOR, "link[rel=icon]").get_attribute("href")
    assert icon == f"{page.server.root}/page.svg"


def test_what_a_model_writes_is_text_and_nothing_else(page, engine):
    hostile = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    )
    engine.pieces = [hostile, "&lt;b&gt;", "\u202e</textarea><a href='javascript:1'>x</a>"]
    page.text.send_keys("a", *SEND)
    page.ends()
    assert page.written == "a" + "".join(engine.pieces)
    page.choose("chat")
    page.text.send_keys("b", Keys.ENTER)
    page.ends()
    [answer] = page.turns_of("assistant")
    assert answer == "".join(engine.pieces)
    assert page.heard.get_property("textContent").count(hostile) == 2
    assert page.browser.find_elements(By.CSS_SELECTOR, "main :is(img, script, a)") == []
    assert page.browser.title == "scripted"


def test_the_server_forbids_scripts_of_a_page(page):
    """If a text ever became markup, it still would not run."""
    page.browser.execute_script(
        "const made = document.createElement('div'); document.body.append(made);"
        "made.innerHTML = `<b onclick=\"document.title='owned'\"></b>`; made.firstChild.click()"
    )
    until(lambda: "Content Security Policy" in str(page.browser.get_log("browser")))
    assert page.browser.title == "scripted"
    page.logs()
    page.open()


def test_a_key_is_asked_for_and_kept_for_the_tab(chromium, monkeypatch):
    monkeypatch.setenv("FST_TEST_KEY", KEY)
    with Server(ScriptedEngine(), key_env="FST_TEST_KEY") as server:
        page = Page(chromium, server)
        until(page.ask.is_displayed)
        assert page.browser.switch_to.active_element == page.key
        page.key.send_keys("not-the-key-of-this-server", Keys.ENTER)
        until(lambda: page.refused.text == "The server refused that key.")
        page.key.send_keys(KEY, Keys.ENTER)
        page.loaded()
        page.text.send_keys("To be ", *SEND)
        page.ends()
        assert page.written == "To be Roses are red."
        assert "$FST_KEY" in page.copied(page.curl)
        assert KEY not in page.copied(page.python)
        page.open()
        page.loaded()  # without being asked again
        page.forget.click()
        page.text.send_keys("To be ", *SEND)
        until(page.ask.is_displayed)
        page.key.send_keys(Keys.ESCAPE)
        until(lambda: page.error.text == "This server asks for a key.")
        assert page.written == "To be "
        assert len(server.engine.requests) == 1
        page.assert_quiet(but="401 (Unauthorized)")  # which the browser itself says


@pytest.mark.parametrize("mode", ["prompt", "chat"])
def test_copied_programs_send_what_the_page_sends(page, engine, mode):
    page.choose(mode)
    page.set("temperature", "0.5")
    page.set("top_k", "3")
    page.set("stop", "'")
    page.set("seed", "5")
    page.text.send_keys('It\'s "1" \\ $HOME\\n ё' + ("" if mode == "chat" else "\n"))
    python, curl = page.copied(page.python), page.copied(page.curl)
    page.text.send_keys(*SEND)
    page.ends()
    [sent] = engine.requests
    done = subprocess.run(
        [sys.executable, "-c", python], capture_output=True, timeout=60, check=False
    )
    assert done.stderr.decode() == ""
    assert done.stdout.decode() == "Roses are red."
    assert engine.requests == [sent, sent]
    assert "Roses are red." in "".join(texts_of(run_curl(curl)))
    assert engine.requests == [sent, sent, sent]


def test_where_there_is_no_clipboard_the_program_is_shown(page):
    page.browser.execute_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.text.send_keys("To be")
    page.python.click()
    until(page.shown.is_displayed)
    assert page.browser.switch_to.active_element == page.code
    selected = page.browser.execute_script("return getSelection().toString()")
    assert selected == page.code.get_property("value")
    assert 'prompt="To be"' in selected
    page.code.send_keys(Keys.ESCAPE)
    until(lambda: page.browser.switch_to.active_element == page.python)


def run_curl(command):
    """Do what a command of curl does, as a shell and curl read it."""
    words = iter(shlex.split(command.replace("\\\n", " ")))
    assert [next(words), next(words)] == ["curl", "-N"]
    url, headers, data = next(words), {}, None
    for option, value in zip(words, words, strict=True):
        if option == "-H":
            headers.update([value.split(": ", 1)])
        else:
            assert option == "-d"
            data = value.encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return answer.read().decode()


def texts_of(stream):
    """The pieces of text in a stream of events."""
    for event in stream.split("\n\n"):
        for choice in json.loads(event[6:])["choices"] if event.startswith("data: {") else ():
            yield choice.get("text") or choice.get("delta", {}).get("content") or ""


@pytest.mark.parametrize(
    ("error", "shown", "status"),
    [
        (EngineBusy("too many\nrequests"), "too many requests. Try again in ", "503"),
        (FstError("the model burned"), "the server failed; request id ", "500"),
    ],
)
def test_an_error_is_shown_as_one_plain_line(opened, error, shown, status):
    opened.server.engine.error = error
    opened.text.send_keys("To be", *SEND)
    until(lambda: shown in opened.error.text)
    assert "\n" not in opened.error.text
    assert opened.error.get_attribute("role") == "alert"
    assert opened.written == "To be"
    assert opened.write.is_displayed()
    opened.assert_quiet(but=f"status of {status}")  # which the browser itself says


def test_an_answer_that_is_cut_off_says_so(page, engine):
    engine.pieces.append(FstError("the model burned"))
    page.text.send_keys("To be ", *SEND)
    until(lambda: "the server failed" in page.error.text)
    assert page.written == "To be Roses are red."


def test_of_a_text_longer_than_the_context_the_end_is_read(page, engine):
    text = "".join(f"{number} " for number in range(100))
    page.text.send_keys(text, *SEND)
    page.ends()
    assert bytes(engine.requests[-1].prompt).decode() == text[-32:]


def test_it_works_without_a_mouse_and_with_a_screen_reader(page, engine):
    page.settings.find_element(By.TAG_NAME, "summary")
    controls = page.browser.find_elements(By.CSS_SELECTOR, "input, textarea, select, button")
    unnamed = [c for c in controls if c.is_displayed() and not c.accessible_name]
    assert unnamed == []
    order = []
    page.text.click()
    for _ in range(6):
        order.append(page.browser.switch_to.active_element)
        order[-1].send_keys(Keys.TAB)
    names = [each.get_attribute("id") or each.tag_name for each in order]
    assert names == ["text", "write", "curl", "python", "summary", "set-max_tokens"]
    page.write.send_keys(Keys.ENTER)
    page.ends()
    assert page.written == "Roses are red."
    assert page.browser.switch_to.active_element == page.write
    assert page.status.get_attribute("role") == "status"


def test_it_is_dark_or_light_and_fits_a_narrow_screen(page):
    def paper(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    assert paper("dark") != paper("light")
    size = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open()
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 320
        assert page.settings.get_property("open") is False
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
