"""The dataset's format: samples cut, written, opened and batched."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest

from fst_core.artefacts import verify, write_manifest
from fst_core.dataset import (
    IGNORED,
    Dataset,
    Samples,
    SplitWriter,
    cut,
    epoch_batches,
    ordered_batches,
    token_dtype,
)
from fst_core.errors import ArtefactError


def brute_force(documents, longest, shortest):
    """The samples of documents, cut one slice after another."""
    return [
        document[at : at + longest]
        for document in documents
        for at in range(0, len(document), longest)
        if len(document[at : at + longest]) >= shortest
    ]


def flat(documents):
    offsets = np.cumsum([0, *map(len, documents)])
    return np.array([i for document in documents for i in document], np.uint32), offsets


def random_documents(rng, largest=300):
    lengths = (rng.choice([0, 1, 2, 7, 8, 9, 16, 17, rng.randint(0, 60)]) for _ in range(30))
    return [[rng.randrange(largest) for _ in range(length)] for length in lengths]


def samples_of(*samples):
    ids, offsets = flat(samples)
    return Samples(ids.astype(np.uint16), offsets[:-1], text_bytes=0)


def test_documents_are_cut_as_by_hand():
    rng = random.Random(228)
    for _ in range(300):
        documents = random_documents(rng)
        longest = rng.randint(1, 20)
        shortest = rng.randint(1, longest)
        ids, offsets = flat(documents)
        starts, ends = cut(offsets, longest, shortest)
        found = [ids[a:b].tolist() for a, b in zip(starts, ends, strict=True)]
        assert found == brute_force(documents, longest, shortest)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_what_is_written_in_parts_equals_what_numpy_saves_at_once(tmp_path, dtype):
    rng = random.Random(228)
    for number in range(20):
        documents = random_documents(rng, largest=np.iinfo(dtype).max + 1)
        at = rng.randint(0, len(documents))
        with SplitWriter(tmp_path / str(number), np.dtype(dtype)) as writer:
            for part in (documents[:at], documents[at:], []):
                ids, offsets = flat(part)
                writer.write(ids, *cut(offsets, 8, 3))
        expected = brute_force(documents, 8, 3)
        ids, offsets = flat(expected)
        assert (writer.samples, writer.tokens) == (len(expected), len(ids))
        for name, array in (
            ("corpus", ids.astype(dtype)),
            ("sample_start_positions", offsets[:-1]),
        ):
            np.save(tmp_path / "expected.npy", array)
            written = (tmp_path / str(number) / f"{name}.npy").read_bytes()
            assert written == (tmp_path / "expected.npy").read_bytes()


def test_an_id_that_does_not_fit_is_an_error_and_never_another_id(tmp_path):
    with pytest.raises(OverflowError, match="id 65536 does not fit uint16"):
        write(tmp_path / "split", [[1, 2, 65_536]], np.uint16)
    write(tmp_path / "larger", [[1, 2, 65_536]], np.uint32)
    assert np.load(tmp_path / "larger/corpus.npy").tolist() == [1, 2, 65_536]


def write(directory, documents, dtype):
    with SplitWriter(directory, np.dtype(dtype)) as writer:
        ids, offsets = flat(documents)
        writer.write(ids, *cut(offsets, 8, 1))


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(1, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_ids_take_two_bytes_as_long_as_they_fit(vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype


# samples


def test_samples_are_a_sequence():
    samples = samples_of([1, 2, 3], [4], [5, 6])
    assert len(samples) == 3
    assert [sample.tolist() for sample in samples] == [[1, 2, 3], [4], [5, 6]]
    assert samples[-1].tolist() == [5, 6]
    assert samples.lengths().tolist() == [3, 1, 2]
    assert samples.tokens == 6
    for index in (3, -4):
        with pytest.raises(IndexError):
            samples[index]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dataset") / "1"
    counts = {"max_sample_length": 8}
    for split, documents in (("train", [[1] * 20, [2] * 5]), ("valid", [[3] * 9])):
        write(directory / split, documents, np.uint16)
        tokens, samples = sum(map(len, documents)), 4 if split == "train" else 2
        counts |= {
            f"number_of_{split}_tokens": tokens,
            f"number_of_{split}_samples": samples,
            f"number_of_{split}_bytes": tokens,
        }
    write_manifest(directory, "dataset", counts=counts, fingerprint="f", fields={}, components={})
    return directory


@pytest.fixture
def dataset(written, tmp_path):
    return shutil.copytree(written, tmp_path / "1")


def test_a_dataset_is_mapped_and_not_read(dataset):
    opened = Dataset.open(dataset)
    for samples in (opened.train, opened.valid):
        assert isinstance(samples.corpus, np.memmap)
        assert isinstance(samples.starts, np.memmap)
        assert not samples.corpus.flags.writeable
    assert [len(sample) for sample in opened.train] == [8, 8, 4, 5]
    assert opened.train.text_bytes == 25
    assert (opened.max_sample_length, opened.fingerprint) == (8, "f")


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}], object),
        np.zeros(25, np.float32),
        np.zeros((5, 5), np.uint16),
        np.zeros((), np.uint16),
        np.zeros(24, np.uint16),
    ],
)
def test_another_array_in_its_place_is_refused(dataset, array):
    np.save(dataset / "train/corpus.npy", array)
    manifest = said_beside_files(dataset)
    write_manifest(dataset, "dataset", **manifest)
    with pytest.raises(ArtefactError, match="train"):
        Dataset.open(dataset)


def said_beside_files(dataset):
    """What the manifest says beside the files, so that it can be written anew for others."""
    said = json.loads((dataset / "fst.json").read_bytes())
    return {name: said[name] for name in ("counts", "fingerprint", "fields", "components")}


def test_any_byte_of_a_header_may_change_and_nothing_worse_than_an_error_comes_of_it(dataset):
    path = dataset / "train/corpus.npy"
    whole = path.read_bytes()
    refused = 0
    for at in range(128):
        for change in (1, 0x20, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
            with pytest.raises(ArtefactError, match=r"corpus\.npy: its content"):
                verify(dataset)
            try:
                Dataset.open(dataset)
            except ArtefactError:
                refused += 1
    assert refused > 150


@pytest.mark.parametrize("missing", ["max_sample_length", "number_of_valid_bytes"])
def test_a_manifest_without_counts_is_refused(dataset, missing):
    fields = said_beside_files(dataset)
    for counts in ({k: v for k, v in fields["counts"].items() if k != missing}, {}):
        write_manifest(dataset, "dataset", **{**fields, "counts": counts})
        with pytest.raises(ArtefactError, match=r"fst\.json does not say"):
            Dataset.open(dataset)


# batches


def rows(batch):
    return [
        [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
        for ids, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True)
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_an_epoch_has_every_sample_once(size):
    rng = random.Random(228)
    written = [[i + 1] * rng.randint(1, 9) for i in range(20)]
    samples = samples_of(*written)
    for batches in (
        list(epoch_batches(samples, size, 228, 0)),
        list(ordered_batches(samples, size)),
    ):
        assert sorted(i for batch in batches for i in batch.indices.tolist()) == list(range(20))
        assert [len(batch.ids) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        for batch in batches:
            assert batch.ids.dtype == batch.labels.dtype == np.int64
            assert rows(batch) == [written[i] for i in batch.indices]
            assert batch.ids.shape[1] == max(map(len, rows(batch)))
            assert batch.tokens == sum(map(len, rows(batch)))
            assert ((batch.labels == batch.ids) | (batch.labels == IGNORED)).all()


def test_the_order_is_a_function_of_seed_and_epoch():
    samples = samples_of(*([i] for i in range(50)))

    def order(seed, epoch):
        return [i for batch in epoch_batches(samples, 4, seed, epoch) for i in batch.indices]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_ordered_batches_begin_with_the_longest():
    samples = samples_of([1], [2] * 5, [3] * 3, [4] * 5)
    assert [batch.indices.tolist() for batch in ordered_batches(samples, 2)] == [[1, 3], [2, 0]]
