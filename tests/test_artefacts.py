"""Artefacts: manifests, hostile and damaged ones too; provenance; publishing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from fst_core.artefacts import (
    numbered,
    provenance,
    publish,
    read_manifest,
    record,
    resolve,
    verify,
    write_manifest,
)
from fst_core.artefacts.digests import digest_fields, digest_file, digest_files
from fst_core.artefacts.model import load_model, load_tokenizer, tokenizer_digest
from fst_core.artefacts.publish import locked, publishing, write_whole
from fst_core.dataset import Dataset
from fst_core.errors import ArtefactError, FstError, MissingPlugin, UserError
from fst_core.plugins import DISTRIBUTION, registry
from fst_core.settings import validate

posix = pytest.mark.skipif(os.name != "posix", reason="needs FIFOs, links or signals of POSIX")


@pytest.fixture
def artefact(work):
    """A directory with a manifest of two files."""
    directory = work / "artefact"
    (directory / "tokenizer").mkdir(parents=True)
    (directory / "weights").write_bytes(b"abc")
    (directory / "tokenizer/tokenizer.json").write_text("{}")
    write_manifest(directory, "dataset", counts={}, components={})
    return directory


def rewrite(directory, **changes):
    """Change what a manifest says; None leaves a field out."""
    path = directory / "fst.json"
    said = json.loads(path.read_bytes()) | changes
    path.write_text(json.dumps({name: value for name, value in said.items() if value is not None}))


def refusal(directory):
    """The message with which a directory is refused, by all that read it."""
    with pytest.raises(ArtefactError) as raised:
        read_manifest(directory)
    for read in (verify, load_model, Dataset.open):
        with pytest.raises(ArtefactError):
            read(directory)
    return str(raised.value)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# manifests


def test_a_manifest_lists_a_file_of_its_own_name_in_a_folder(work):
    (work / "tokenizer").mkdir()
    (work / "tokenizer" / "fst.json").write_text("{}")
    write_manifest(work, "model")
    assert read_manifest(work)["files"].keys() == {"tokenizer/fst.json"}


def test_a_manifest_lists_every_file_with_its_digest(artefact):
    said = read_manifest(artefact, kind="dataset")
    assert said["files"] == {
        "tokenizer/tokenizer.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2},
        "weights": {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3},
    }
    assert said["schema"] == 1
    assert set(said["versions"]) >= {"fst", "python", "numpy"}
    assert verify(artefact) == said


@pytest.mark.parametrize("name", ["weights", "tokenizer/tokenizer.json"])
def test_a_changed_byte_is_found_by_verify(artefact, name):
    content = (artefact / name).read_bytes()
    (artefact / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    read_manifest(artefact)  # the size is the same
    with pytest.raises(ArtefactError, match=rf"{name}.*its content is not what was written"):
        verify(artefact)


@pytest.mark.parametrize("content", [b"", b"ab", b"abcd"])
def test_a_file_of_another_size_is_found_on_opening(artefact, content):
    (artefact / "weights").write_bytes(content)
    assert f"weights: {len(content)} bytes long instead of 3" in refusal(artefact)


def test_a_missing_file_is_found_on_opening(artefact):
    (artefact / "weights").unlink()
    assert "weights: missing" in refusal(artefact)


def test_a_directory_that_is_none_or_no_artefact_is_told(work):
    assert refusal(work / "nothing").endswith("no such directory")
    assert "it has no fst.json" in refusal(work)
    (work / "file").write_text("")
    assert refusal(work / "file").endswith("no such directory")


DAMAGED = {
    "empty": b"",
    "cut": b'{"schema": 1, "kind": "dataset", "files": {',
    "not UTF-8": b'{"schema": "\xff"}',
    "an array": b"[]",
    "null": b"null",
    "no files": b'{"schema": 1, "kind": "dataset"}',
    "files is an array": b'{"schema": 1, "kind": "dataset", "files": []}',
    "nested": b"[" * 200_000,
    "nested inside": b'{"files": ' + b'{"a":' * 100_000,
    "a huge number": b'{"schema": ' + b"9" * 10_000 + b"}",
    "another schema": b'{"schema": 2, "kind": "dataset", "files": {}}',
    "a schema of a megabyte": b'{"schema": "' + b"x" * 2**20 + b'", "files": {}}',
    "counts is a number": b'{"schema": 1, "kind": "dataset", "files": {}, "counts": 3}',
    "components is null": b'{"schema": 1, "kind": "model", "files": {}, "components": null}',
    "fields is an array": b'{"schema": 1, "kind": "dataset", "files": {}, "fields": []}',
    "fingerprint is a number": b'{"schema": 1, "kind": "dataset", "files": {}, "fingerprint": 1}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_manifest_is_refused_in_one_line(work, content):
    (work / "fst.json").write_bytes(content)
    message = refusal(work)
    assert "\n" not in message
    assert len(message) < 500


def test_a_huge_manifest_is_not_read(work):
    with (work / "fst.json").open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room
    assert "too large to be a manifest" in refusal(work)


@pytest.mark.parametrize("name", ["weights", "nothing"])
@pytest.mark.parametrize(
    "file", [{}, {"bytes": 3}, {"sha256": "a" * 64}, {"bytes": "3", "sha256": ""}, None, [], 3]
)
def test_a_file_without_its_length_and_digest_is_refused(artefact, name, file):
    rewrite(artefact, files={name: file})
    assert f"does not say what '{name}' holds" in refusal(artefact)


def test_another_kind_is_refused(artefact):
    with pytest.raises(ArtefactError, match="of kind 'dataset', not a model"):
        read_manifest(artefact, kind="model")
    rewrite(artefact, kind=["x" * 10_000])
    with pytest.raises(ArtefactError) as raised:
        read_manifest(artefact, kind="model")
    assert len(str(raised.value)) < 300


OUTSIDE = [
    "../../etc/passwd",
    "..",
    "tokenizer/../../secret",
    "tokenizer/..",
    "/etc/passwd",
    "//etc/passwd",
    "/dev/zero",
    "~/.bashrc",
    "~",
    "$HOME/.bashrc",
    "weights\0",
    "\0",
    "C:\\Windows\\win.ini",
    "C:secret",
    "\\\\server\\share\\file",
    "..\\secret",
    "a/" * 3_000 + "x",
]
NO_FILE = {
    "x" * 300: "missing",
    "": "missing",
    ".": "missing",
    "tokenizer": "missing",
    "link": "leads outside",
    "folder/secret": "leads outside",
    "ring": "holds no such file",
    "\ud800": "holds no such file",
}


@posix
@pytest.mark.parametrize(
    ("name", "reason"),
    [*((name, "names a file outside") for name in OUTSIDE), *NO_FILE.items()],
    ids=lambda text: ascii(text)[:30],
)
def test_a_manifest_names_no_file_outside_of_its_directory(artefact, name, reason):
    secret = artefact.parent / "secret"
    secret.write_bytes(b"abc")
    for link, target in (("link", secret), ("folder", artefact.parent), ("ring", "ring")):
        if name.startswith(link):
            (artefact / link).symlink_to(target)
    rewrite(artefact, files={name: {"bytes": 3, "sha256": digest_file(secret)}})
    message = refusal(artefact)
    assert reason in message
    assert not {"\n", "\0"} & set(message)
    assert len(message) < 1_000


@posix
def test_links_inside_of_a_directory_are_followed(artefact):
    (artefact / "weights").rename(artefact / "blob")
    (artefact / "weights").symlink_to("blob")
    assert verify(artefact)
    moved = artefact.parent / "moved"
    moved.symlink_to(artefact)
    assert verify(moved)


@posix
@pytest.mark.parametrize("name", ["weights", "fst.json", "tokenizer/tokenizer.json"])
def test_nothing_waits_for_a_pipe_in_place_of_a_file(artefact, name):
    (artefact / name).unlink()
    os.mkfifo(artefact / name)
    begun = time.monotonic()
    refusal(artefact)
    assert time.monotonic() - begun < 2


@posix
@pytest.mark.parametrize("name", ["train/corpus.npy", "tokenizer/bytes.json", "config.json"])
def test_nor_for_one_that_no_manifest_lists(artefact, name):
    (artefact / name).parent.mkdir(exist_ok=True)
    os.mkfifo(artefact / name)
    assert "neither a file nor a folder" in refusal(artefact)


@posix
def test_nor_does_an_unlisted_link_lead_out(artefact):
    (artefact / "model.safetensors").symlink_to("/etc/passwd")
    assert "leads outside of" in refusal(artefact)


def test_files_that_people_add_do_no_harm(artefact):
    (artefact / "notes $1 ~.md").write_text("good")
    (artefact / "more").mkdir()
    assert verify(artefact)


# models and tokenizers


def test_the_tokenizer_digest_is_of_its_files_alone(artefact):
    first = tokenizer_digest(read_manifest(artefact))
    (artefact / "weights").write_bytes(b"other")
    write_manifest(artefact, "dataset")
    assert tokenizer_digest(read_manifest(artefact)) == first
    (artefact / "tokenizer/tokenizer.json").write_text("[]")
    write_manifest(artefact, "dataset")
    assert tokenizer_digest(read_manifest(artefact)) != first


@pytest.mark.parametrize("components", [{}, {"tokenizer": None}, {"tokenizer": []}])
def test_an_artefact_that_does_not_say_what_made_it_is_refused(artefact, components):
    rewrite(artefact, components=components)
    with pytest.raises(ArtefactError, match="does not say which tokenizer made it"):
        load_tokenizer(artefact, read_manifest(artefact))


def test_a_model_that_does_not_say_its_context_is_refused(artefact):
    rewrite(artefact, kind="model")
    with pytest.raises(ArtefactError, match="does not say context_length"):
        load_model(artefact)


# provenance

BYTES = {"use": "bytes", "plugin": "bytes", "distribution": DISTRIBUTION, "version": "0.1.0"}


def test_a_record_finds_its_component_again():
    offer = registry().find("reader", "delimited")
    settings = validate(offer.settings_class(), {"train": "a.txt"})
    said = json.loads(json.dumps(record(offer, settings)))
    assert resolve("reader", said, "here") is offer
    assert said["format"] == offer.implementation().format
    assert said["settings"]["strip_lines"] is True  # filled
    assert said["settings_sha256"] == digest_fields(said["settings"])
    assert (said["distribution"], said["version"]) == (DISTRIBUTION, offer.version)


def test_a_plugin_that_is_not_installed_is_told_with_its_pip_line():
    said = BYTES | {
        "use": "runes",
        "plugin": "runes",
        "distribution": "fst-runes",
        "version": "1.2",
    }
    with pytest.raises(MissingPlugin) as raised:
        resolve("tokenizer", said, "models/a")
    assert str(raised.value).startswith(
        "models/a: made with tokenizer 'runes/runes' of fst-runes 1.2, and fst-runes is not "
        "installed. Install it: pip install fst-runes==1.2. Installed tokenizers: "
    )
    assert "bytes" in str(raised.value)
    assert raised.value.exit_status == 2


def test_a_version_that_offers_it_no_more_is_told():
    said = BYTES | {"use": "runes", "distribution": "pytest", "version": "1.0"}
    with pytest.raises(MissingPlugin, match=r"pytest is installed as .*, which does not offer it"):
        resolve("tokenizer", said, "here")


HOSTILE = [
    "os:system",
    "os.system",
    "subprocess",
    "../x",
    "/etc/passwd",
    "bytes/bytes",
    "byt\u0435s",  # a Cyrillic letter
    "Bytes",
    "bytes\n",
    "",
    "x" * 100_000,
    None,
    3,
    ["bytes"],
    {"__class__": "os.system"},
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:30])
@pytest.mark.parametrize("field", ["use", "plugin"])
def test_a_record_selects_by_name_and_never_imports(field, name):
    registry().find("tokenizer", "bytes").implementation()
    before = set(sys.modules)
    with pytest.raises(FstError) as raised:
        resolve("tokenizer", BYTES | {field: name}, "here")
    assert set(sys.modules) == before
    assert raised.value.exit_status == 2
    assert "Installed tokenizers: " in str(raised.value)
    assert str(raised.value).isascii()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("distribution", "x; rm -rf ~"),
        ("distribution", "--index-url=http://example.org x"),
        ("distribution", "git+https://example.org/x"),
        ("distribution", "."),
        ("distribution", None),
        ("version", "1.0 --extra-index-url=http://example.org"),
        ("version", "$(id)"),
        ("version", 1),
    ],
)
def test_what_people_would_copy_into_a_shell_is_a_name_and_a_version(field, value):
    with pytest.raises(ArtefactError, match=f"which tokenizer made it: {field} = "):
        resolve("tokenizer", BYTES | {"use": "runes", field: value}, "here")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.org/x.whl", True),
        ("file:///home/someone/x", False),
        ("file:///C:/x", False),
        ("", False),
        (None, False),
    ],
)
def test_a_record_has_no_path_of_this_machine(monkeypatch, url, kept):
    class Installed(Distribution):
        def read_text(self, filename):
            return None if url is None else json.dumps({"url": url})

        def locate_file(self, path):
            raise NotImplementedError

    monkeypatch.setattr(provenance, "distribution", lambda _: Installed())
    said = record(registry().find("tokenizer", "bytes"), None)
    assert said.get("direct_url") == (url if kept else None)


# digests


def test_digests_are_of_content_and_not_of_names(work):
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (work / name).write_bytes(content)
    assert digest_file(work / "a") == hashlib.sha256(b"1").hexdigest()
    digests = {
        names: digest_files(work / name for name in names) for names in ("ab", "cb", "ba", "a")
    }
    assert digests["ab"] == digests["cb"]
    assert len(set(digests.values())) == 3


def test_fields_are_equal_whatever_their_order():
    assert digest_fields({"a": 1, "b": [2]}) == digest_fields({"b": [2], "a": 1})
    assert digest_fields({"a": 1}) != digest_fields({"a": "1"})


# publishing


def test_a_published_directory_appears_whole(work):
    target = work / "root" / "1"
    with publishing(target) as staging:
        (staging / "deep").mkdir()
        (staging / "deep/file").write_text("content")
        assert not target.exists()
    assert (target / "deep/file").read_text() == "content"
    assert names(target.parent) == ["1"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
def test_what_fails_leaves_nothing(work, error):
    def failing():
        with publishing(work / "1") as staging:
            (staging / "file").write_text("half")
            raise error

    with pytest.raises(error):
        failing()
    assert names(work) == []


def test_what_a_killed_process_left_is_removed(work):
    left = work / ".1.partial"
    left.mkdir()
    (left / "file").write_text("half")
    with publishing(work / "1") as staging:
        (staging / "other").write_text("whole")
    assert names(work) == ["1"]
    assert names(work / "1") == ["other"]


@posix
def test_everything_is_flushed_before_it_appears_and_its_name_after(work, monkeypatch):
    """A power cut at any moment: the name is there only if all that it stands for is."""
    target = work / "1"
    events = []
    fsync, rename = os.fsync, Path.rename

    def recorded(descriptor):
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def renamed(source, to):
        events.append("rename")
        return rename(source, to)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to name what is flushed")
    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Path, "rename", renamed)
    with publishing(target) as staging:
        (staging / "deep").mkdir()
        (staging / "deep/file").write_text("1")
        (staging / "fst.json").write_text("2")
        (staging / "fst.json").chmod(0o444)
    at = events.index("rename")
    inside = ["", "/deep", "/deep/file", "/fst.json"]
    assert set(events[:at]) == {f"{staging}{name}" for name in inside}
    assert events[at + 1 :] == [str(work)]


def test_a_file_is_replaced_whole_or_stays(work, monkeypatch):
    path = work / "a.json"
    write_whole(path, b"old\n")
    write_whole(path, "new é\n".encode())
    assert path.read_bytes() == "new é\n".encode()
    monkeypatch.setattr(publish.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"newer")
    assert path.read_text("utf-8") == "new é\n"
    assert names(work) == ["a.json"]


def full(*_):
    raise OSError(28, "No space left on device")


def test_numbered_directories_are_in_the_order_of_their_numbers(work):
    for name in ("10", "9", "1", ".2.partial", "x", "-3", "1.5"):
        (work / name).mkdir()
    (work / "4").write_text("a file")
    assert [p.name for p in numbered(work)] == ["1", "9", "10"]
    assert numbered(work / "none") == []


# locks

HOLDER = """
import sys, time
from pathlib import Path
from fst_core.artefacts.publish import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@posix
def test_a_lock_keeps_others_out_until_its_holder_ends_however_it_ends(work):
    command = [sys.executable, "-c", HOLDER, str(work / "root")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"another run works on it \(lock .*\.lock\)") as raised:
            locked(work / "root").__enter__()
        assert raised.value.exit_status == 2
        holder.send_signal(signal.SIGKILL)
    with locked(work / "root"):
        pass


@posix
def test_a_directory_that_cannot_be_made_is_told(work):
    (work / "file").write_text("")
    with pytest.raises(UserError, match=r"file/root: cannot be written to: Not a directory"):
        locked(work / "file/root").__enter__()
