"""Models of strangers: whatever lies in one, loading it ends in one line, runs nothing and takes little."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys

import pytest
from fakes import environment_of
from fakes.tiny import make

LOADING = """
import json, resource, sys, time
from pathlib import Path
from fst_core.artefacts.model import load_model
from fst_core.errors import FstError

load_model(Path(sys.argv[1]))  # whatever has to be imported
seen = []
watched = ("exec", "import", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
           "pickle.find_class", "socket.connect", "socket.getaddrinfo", "ctypes.dlopen")
sys.addaudithook(lambda event, args: seen.append(f"{event} {args!r:.100}") if event in watched else None)
told = {}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[2:]):
    seen.clear()
    begun = time.monotonic()
    try:
        load_model(path)
        said = None
    except FstError as error:
        said = str(error)
    told[path.name] = [said, time.monotonic() - begun, list(seen)]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([told, grown]))
"""


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (self.canary,))


def header_of(weights):
    (size,) = struct.unpack("<Q", weights[:8])
    return json.loads(weights[8 : 8 + size]), weights[8 + size :]


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def hostile_weights(weights):
    """Yield a name and a file of weights for each way in which one may be hostile."""
    header, data = header_of(weights)
    names = [name for name in header if name != "__metadata__"]
    first, second = names[:2]

    def changed(name, **values):
        return with_header({**header, name: {**header[name], **values}}, data)

    yield "an-endless-header", struct.pack("<Q", 2**62) + weights[8:]
    yield "a-header-of-200-MB", struct.pack("<Q", 200 * 2**20) + weights[8:]
    yield "overlapping", changed(second, data_offsets=header[first]["data_offsets"])
    yield "beyond-the-end", changed(first, data_offsets=[len(data), len(data) + 2**40])
    yield "backwards", changed(first, data_offsets=header[first]["data_offsets"][::-1])
    yield "below-zero", changed(first, data_offsets=[-4, 0])
    yield "an-overflowing-shape", changed(first, shape=[2**62, 2**62])
    yield "another-shape", changed(first, shape=[1, *header[first]["shape"]])
    yield "an-unknown-type", changed(first, dtype="PICKLE")
    twice = json.dumps(header)[:-1] + f', "{first}": {json.dumps(header[second])}}}'
    yield "a-name-twice", with_header(twice.encode(), data)
    yield "no-json", with_header(b"{" * 5000, data)
    yield "with-holes", with_header(header, data + b"\0" * 64)
    yield "not-numbers", with_header(header, b"\xff" * len(data))


def seal(model):
    """Write the manifest's digests anew, as whoever made the model would."""
    manifest = json.loads((model / "fst.json").read_text())
    for name in manifest["files"]:
        content = (model / name).read_bytes()
        manifest["files"][name] |= {
            key: value
            for key, value in {
                "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
                "size": len(content),
            }.items()
            if key in manifest["files"][name]
        }  # fmt: skip
    (model / "fst.json").write_text(json.dumps(manifest))


def hostile_models(good, folder):
    """Yield the directory of each hostile model."""
    canary = str(folder / "ran")
    bomb = pickle.dumps(Bomb(canary))

    def copy(name):
        return shutil.copytree(good, folder / name)

    for name, weights in hostile_weights((good / "model.safetensors").read_bytes()):
        model = copy(name)
        (model / "model.safetensors").write_bytes(weights)
        seal(model)
        yield model
    model = copy("pickled-weights")
    (model / "model.safetensors").write_bytes(bomb)
    seal(model)
    yield model
    for key, value in (
        ("auto_map", {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}),
        ("_attn_implementation_internal", "owner/kernel"),
    ):
        model = copy(key.strip("_"))
        (model / "evil.py").write_text(f"import os\nos.mkdir({canary!r})\n")
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, key: value}))
        seal(model)
        yield model
    for key in ("_target_", "_class_path", "_instantiator"):
        model = copy(key.strip("_"))
        manifest = json.loads((model / "fst.json").read_text())
        manifest["components"]["model"] = {key: "os:mkdir", "use": "os:mkdir", "settings": {}}
        (model / "fst.json").write_text(json.dumps(manifest))
        yield model
    model = copy("a-pipe")
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    yield model
    model = copy("a-link-out")
    shutil.move(model / "model.safetensors", folder / "elsewhere.safetensors")
    (model / "model.safetensors").symlink_to(folder / "elsewhere.safetensors")
    yield model


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pipes, and memory in KiB")
def test_twenty_hostile_models_are_refused_and_nothing_of_them_runs(work):
    made = make(work)
    assert made.status == 0, made.err
    good, folder = work / "runs/tiny/1/model", work / "hostile"
    folder.mkdir()
    models = list(hostile_models(good, folder))
    assert len(models) >= 20
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(good), *map(str, models)],
        env=environment_of(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, grown = json.loads(done.stdout)
    for name, (said, seconds, seen) in told.items():
        assert said is not None, name
        assert "\n" not in said, name
        assert seconds < 2, name
        assert seen == [], name
    assert grown < 200 * 1024
    assert not (folder / "ran").exists()
