"""The run card: five sentences that say what came of a run, its plots, and the baselines it is held against."""

from __future__ import annotations

import json
import lzma
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from fst_core.dataset import Samples
from fst_core.errors import FstError, UserError
from fst_core.pipeline.run import Run
from fst_core.plugins import registry
from fst_core.report.baselines import baselines, ngram_bits, predicted
from fst_core.report.card import duration, write_report
from fst_core.report.plots import line_plot
from fst_core.testing.toys import ToyTokenizer, toy_dataset


@pytest.fixture
def run(work):
    """A run that has begun, on a dataset that is there."""
    toy_dataset(work / "data/datasets/tiny/1", ToyTokenizer())
    directory = work / "runs/tiny/1"
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(json.dumps({"fields": {"dataset": "toy"}}))
    (directory / "pipeline.toml").write_text('[run]\nname = "tiny"\n[tokenizer]\nuse = "toy"\n')
    return Run("tiny", directory, seed=1)


@pytest.fixture(autouse=True)
def toys_are_found(monkeypatch):
    """Datasets of toys name no tokenizer, as those of pipelines do."""
    monkeypatch.setattr(
        "fst_core.report.card.load_tokenizer", lambda directory, manifest: ToyTokenizer()
    )


def told(run, losses=(), valid=()):
    """Report losses as a trainer does, a step each, and write the card; return its sentences."""
    validations = dict(valid)
    for step, loss in enumerate(losses, 1):
        run.metrics(step, {"loss": loss, "tokens_per_second": 1000.0})
        if step in validations:
            run.metrics(step, {"valid_loss": validations[step]})
    return write_report(run.directory).read_text("utf-8").split("\n\n")[1]


FALLING = [5 - 0.03 * step for step in range(100)]
FLAT_AT_THE_END = [max(5 - 0.1 * step, 2.5) for step in range(100)]


def test_a_run_that_still_improves_is_told_to_go_on(run):
    text = told(run, FALLING, [(25, 4.3), (50, 3.6), (75, 3.0), (100, 2.2)])
    assert text.startswith("It learned: the training loss fell from 4.94 to 2.09 nats a token; ")
    assert "It did not overfit: the loss on held-out text was 2.20 at the best validation" in text
    assert "at step 100, 0.11 above the loss in training, and did not rise after it." in text
    assert "Next, train for more steps: the loss still fell by 26.7% at the end." in text


def test_a_run_that_overfits_is_told_from_one_that_does_not(run):
    text = told(run, FALLING, [(25, 4.3), (50, 3.6), (75, 3.8), (100, 4.1)])
    assert (
        "It overfitted: the loss on held-out text was lowest at step 50, 3.60, and was 4.10 at "
        "step 100, more than 2% above." in text
    )
    assert "Next, add documents, raise dropout or take a smaller model" in text


def test_a_rise_of_a_hundredth_is_not_overfitting(run):
    text = told(run, FALLING, [(50, 3.60), (100, 3.64)])
    assert "It did not overfit: " in text
    assert "and rose by 1.1% after it: less than 2% tells nothing." in text


def finish(run, **figures):
    """Write the model's manifest, as far as a card looks at it."""
    (run.directory / "model").mkdir()
    manifest = {"figures": figures, "counts": {"parameters": 12_345}}
    (run.directory / "model/fst.json").write_text(json.dumps(manifest))


def test_early_stopping_is_told_where_it_ended_the_run(run):
    fields = {"dataset": "toy", "trainer.patience": 2}
    (run.directory / "run.json").write_text(json.dumps({"fields": fields}))
    finish(run, steps=100)
    text = told(run, FALLING, [(25, 4.3), (50, 3.6), (75, 3.62)])
    assert "Early stopping" not in text
    text = told(run, FALLING, [(25, 4.3), (50, 3.6), (75, 3.62), (100, 3.61)])
    assert "Early stopping ended it: 2 validations were no better." in text


def test_a_run_of_few_steps_or_less_than_an_epoch_is_told_to_go_on(run, work):
    text = told(run, FLAT_AT_THE_END[:5])
    assert "Next, train for more steps: 5 are too few to tell what it can learn." in text
    tokens = toy_dataset(work / "again", ToyTokenizer()).train.tokens
    finish(run, steps=100, tokens=round(0.6 * tokens), tokens_per_second=1000.0)
    text = told(run, FLAT_AT_THE_END, [(25, 3.0), (50, 2.6), (75, 2.6), (100, 2.6)])
    assert "Next, train for more steps: it has not yet seen all documents (0.6 epochs)." in text


def test_the_table_and_the_sentence_name_the_same_loss(run):
    finish(run, steps=100, loss=FALLING[-1])
    assert "fell from 4.94 to 2.09 nats" in told(run, FALLING)
    assert "| training loss at the end | 2.09 |" in (run.directory / "report.md").read_text()


def test_a_run_that_has_come_to_rest_is_told_to_grow(run):
    text = told(run, FLAT_AT_THE_END, [(25, 3.0), (50, 2.6), (75, 2.6), (100, 2.6)])
    assert "It did not overfit" in text
    assert "Next, take a larger model or add documents: the loss no longer falls." in text


def test_a_run_that_did_not_learn_is_told_so(run):
    text = told(run, [4.0, 4.1] * 30)
    assert text.startswith("It did not learn: the training loss was 4.0")
    assert "Whether it overfitted is not known: nothing was validated." in text
    assert "raise the learning rate" in text


def test_a_trainer_that_reports_nothing_gets_a_card_all_the_same(run):
    text = told(run)
    assert text.startswith("Whether it learned is not known")
    assert text.count("is not known") == 4
    assert text.endswith("It made 0 steps; what they took is not known.")


def test_bits_per_byte_follow_from_the_best_validation(run, work):
    text = told(run, FALLING, [(50, 2.0), (100, 2.5)])
    dataset = toy_dataset(work / "again", ToyTokenizer())
    targets = dataset.valid.tokens - len(dataset.valid)
    bits = 2.0 * targets / math.log(2) / dataset.valid.text_bytes
    assert f"It predicts held-out text in {bits:.3f} bits a byte, " in text


def test_figures_that_were_measured_go_before_and_baselines_are_told_apart(run, work):
    known = baselines(toy_dataset(work / "again", ToyTokenizer()), ToyTokenizer())
    between = (known["a unigram model"] + known["a 5-gram model"]) / 2
    figures = {"figures": {"perplexity": {"bits_per_byte": between}}, "unmet": ["it is large"]}
    (run.directory / "evaluation.json").write_text(json.dumps(figures))
    card = told(run, FALLING, [(100, 2.0)])
    better, worse = card.partition("bits a byte, better than ")[2].split(" but not better than ")
    assert "a unigram model" in better
    assert "a 5-gram model" in worse.partition(". ")[0]
    assert "**A gate was not met:** it is large" in (run.directory / "report.md").read_text()


def test_a_run_whose_dataset_is_gone_has_no_baselines(run, work):
    (work / "data/datasets/tiny/1/fst.json").unlink()
    text = told(run, FALLING, [(100, 2.0)])
    assert "How it compares is not known" in text
    assert text.startswith("It learned")


def test_the_cost_is_that_of_training_alone(run):
    (run.directory / "model").mkdir()
    manifest = {
        "figures": {"steps": 100, "tokens": 90_000, "tokens_per_second": 1000.0},
        "counts": {"parameters": 12_345},
    }
    (run.directory / "model/fst.json").write_text(json.dumps(manifest))
    text = told(run, FALLING)
    assert "It took 90 s for 100 steps over 90,000 tokens (" in text
    assert text.endswith("at 1,000 tokens a second with 12,345 parameters.")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (42, "42 s"), (312, "5 min 12 s"), (7260, "2 h 01 min")],
)
def test_durations_are_told_in_words(seconds, words):
    assert duration(seconds) == words


def test_the_card_shows_plots_and_samples(run):
    line = {"step": 9, "prompt": "To be", "text": " or\nnot"}
    (run.directory / "samples.jsonl").write_text(json.dumps(line) + "\n")
    told(run, FALLING, [(50, 2.0), (100, 2.5)])
    card = (run.directory / "report.md").read_text("utf-8")
    assert "\n\nFrom ` To be `:\n\n     or\n    not\n\n" in card
    plots = sorted(path.name for path in (run.directory / "report").glob("*.svg"))
    assert plots == ["loss.svg", "tokens_per_second.svg"]
    assert all(f"](report/{name})" in card for name in plots)


# when it is written


def test_observers_keep_metrics_and_write_the_card(run):
    run.metrics(1, {"loss": 2.0})
    run.tell("fst_stage_finished", stage="prepare", artefact=run.directory)
    assert not (run.directory / "report.md").exists()
    run.tell("fst_stage_finished", stage="train", artefact=run.directory / "model")
    assert (run.directory / "report.md").is_file()


@pytest.mark.parametrize("kind", [FstError, UserError])
def test_a_run_that_failed_gets_a_card_that_says_why(run, kind):
    run.tell("fst_stage_failed", stage="train", error=kind("step 7: the loss is nan"))
    card = (run.directory / "report.md").read_text("utf-8")
    assert "**It stopped with an error:** step 7: the loss is nan" in card
    assert "Next, lower learning_rate or raise num_warmup_steps." in card


def test_a_run_that_failed_names_no_speed(run):
    for step in (1, 2):
        run.metrics(step, {"loss": 4.0, "tokens_per_second": 7366.0})
    run.tell("fst_stage_failed", stage="train", error=FstError("the disk is full"))
    card = (run.directory / "report.md").read_text("utf-8")
    assert "It made 2 steps; what they took is not known." in card
    assert "7,366" not in card


def test_a_run_that_was_interrupted_gets_none(run):
    run.tell("fst_stage_failed", stage="train", error=KeyboardInterrupt())
    assert not (run.directory / "report.md").exists()


def test_the_hooks_of_the_card_belong_to_the_plugin_evaluation():
    owners = {
        implementation.plugin.__name__
        for hook in ("fst_metrics", "fst_stage_finished", "fst_stage_failed")
        for implementation in getattr(registry().hooks.hook, hook).get_hookimpls()
    }
    assert "fst_evaluation" in owners


# plots


def test_a_plot_is_well_formed_and_its_points_lie_on_the_paper():
    noisy = [(step, 10**6 * math.sin(step)) for step in range(5000)]
    plot = ET.fromstring(line_plot("<a & b>", {"one": noisy, "two": [(7, 3.0)]}, {"level": 2e6}))
    names = {element.tag.rpartition("}")[2] for element in plot.iter()}
    assert names >= {"polyline", "circle", "text", "line"}
    [line] = [element for element in plot.iter() if element.tag.endswith("polyline")]
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert 100 < len(points) <= 400
    assert all(0 <= x <= 720 and 0 <= y <= 300 for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


@pytest.mark.parametrize("points", [[(0, 0.0)], [(1, 2.0), (2, 2.0)], [(1, 1e-9), (2, 2e-9)]])
def test_plots_of_hardly_anything_are_plots(points):
    ET.fromstring(line_plot("loss", {"loss": points}, {}))


# baselines


def samples(corpus, starts=(0,)):
    return Samples(np.array(corpus, np.uint16), np.array(starts, np.int64), text_bytes=1)


def plain_chance(train, context, wanted, vocab_size):
    """Witten and Bell's interpolation, by counting."""
    if context is None:
        return 1 / vocab_size
    size = len(context)
    after = [
        train[i + size] for i in range(len(train) - size) if tuple(train[i : i + size]) == context
    ]
    lower = plain_chance(train, context[1:] if context else None, wanted, vocab_size)
    types = len(set(after))
    return (after.count(wanted) + types * lower) / (len(after) + types) if after else lower


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_an_ngram_model_has_the_chances_of_plain_counting(order):
    generator = np.random.default_rng(228)
    train, valid = generator.integers(0, 4, 120).tolist(), generator.integers(0, 5, 30).tolist()
    bits = ngram_bits(samples(train), samples(valid), 5, order)
    for place, wanted in enumerate(valid):
        context = tuple(valid[max(0, place - order + 1) : place])
        chance = plain_chance(train, context, wanted, 5)
        assert bits[place] == pytest.approx(-math.log2(chance), rel=1e-9)


def test_an_ngram_models_chances_add_up_to_one():
    train, before = [0, 1, 2, 0, 1, 3, 0, 1, 2], [3, 0, 1]
    chances = [
        2 ** -ngram_bits(samples(train), samples([*before, wanted]), 6, 3)[-1]
        for wanted in range(6)
    ]
    assert sum(chances) == pytest.approx(1)
    assert chances.index(max(chances)) == 2


@pytest.mark.parametrize("train", [[], [1], [1, 2, 3]])
def test_a_corpus_shorter_than_the_order_is_no_error(train):
    assert np.isfinite(ngram_bits(samples(train), samples([1, 2]), 5, 5)).all()


def test_the_first_id_of_a_sample_is_not_predicted():
    split = samples(range(9), starts=(0, 4, 5))
    assert predicted(split).tolist() == [False, True, True, True, False, False, True, True, True]


def test_what_carries_no_loss_is_not_predicted():
    split = replace(samples(range(6), starts=(0, 3)), loss=np.array([1, 0, 1, 1, 1, 0], np.uint8))
    assert predicted(split).tolist() == [False, False, True, False, True, False]


def test_of_a_long_corpus_a_part_stands_for_all(work, monkeypatch):
    dataset = toy_dataset(work / "dataset", ToyTokenizer())
    whole = baselines(dataset, ToyTokenizer())
    monkeypatch.setattr("fst_core.report.baselines._MOST", dataset.valid.tokens // 2)
    part = baselines(dataset, ToyTokenizer())
    assert part["a unigram model"] == pytest.approx(whole["a unigram model"], rel=0.2)
    assert part["a unigram model"] != whole["a unigram model"]


def test_baselines_are_counted_in_bytes_of_text(work):
    dataset = toy_dataset(work / "dataset", ToyTokenizer())
    known = baselines(dataset, ToyTokenizer())
    bits = ngram_bits(dataset.train, dataset.valid, ToyTokenizer.vocab_size, 5)
    counted = sum(bits[predicted(dataset.valid)])
    assert known["a 5-gram model"] == pytest.approx(counted / dataset.valid.text_bytes)
    assert known["a 5-gram model"] < known["a unigram model"]


def test_only_a_text_that_is_long_enough_is_compressed(work, monkeypatch):
    dataset = toy_dataset(work / "dataset", ToyTokenizer())
    text = ToyTokenizer().decode(dataset.valid.corpus.tolist()).encode()
    assert len(text) < 10_000
    assert "xz -9" not in baselines(dataset, ToyTokenizer())
    monkeypatch.setattr("fst_core.report.baselines._SHORTEST", len(text))
    known = baselines(dataset, ToyTokenizer())
    assert known["xz -9"] == 8 * len(lzma.compress(text, preset=9)) / len(text)


def test_a_lossy_tokenizer_has_no_baselines(work, monkeypatch):
    dataset = toy_dataset(work / "dataset", ToyTokenizer())
    monkeypatch.setattr(ToyTokenizer, "lossy", True)
    assert baselines(dataset, ToyTokenizer()) == {}
