import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from support.artifacts import tiny_artifact
from support.comparisons import made_study

from lifelong.offline.evaluation.compare import Comparison, Runs, compare
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.reports.comparison import dataset_section, pair_difference, write_comparison
from lifelong.testing.datasets import tiny_dataset


def text_of(path):
    page = re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", page).replace("&#39;", "'").split())


def headings(path):
    return re.findall(r"<h2>(.*?)</h2>", path.read_text())


@pytest.fixture(scope="module")
def page(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    curve = [{"examples": 1, "auc": 0.5}, {"examples": 2, "auc": 0.6}]
    tiny_artifact(out / "runs" / "hpmn-seed0" / "artifact", dataset, metrics={"learning_curve": curve})
    return write_comparison(out, made_study(models=12), lifelong="hpmn", dataset=dataset, runs=out / "runs")


def test_the_page_has_all_parts_in_order(page):
    assert headings(page) == [
        "Notes",
        "All models",
        "By length of the history",
        "Training",
        "Quality against cost",
        "Case studies",
        "The data set",
        "Calibration",
        "Commands",
        "Conditions",
    ]


def test_the_page_shows_its_command_and_notes(page):
    text = text_of(page)
    assert "lifelong compare data --models all --seeds 3 --out report" in text
    assert "spare is left out: the data has no event types" in text


def test_ids_on_the_page_are_unique(page):
    ids = re.findall(r' id="([^"]+)"', page.read_text())
    assert len(ids) == len(set(ids))


def test_every_table_lies_beside_the_page_in_three_formats(page):
    folder = page.parent / "tables"
    for name in ("main", "history-length", "dataset"):
        assert {path.suffix for path in folder.glob(f"{name}.*")} == {".md", ".csv", ".tex"}


def test_tables_scroll_in_their_own_box_and_captions_do_not(page):
    source = page.read_text()
    assert len(re.findall(r'<div class="scroll" tabindex="0" role="group"\s+aria-label="[^"]+"><table>', source)) == (
        source.count("<table>")
    )
    assert '</table></div><p class="caption">Means over seeds.' in source


def test_the_record_alone_makes_a_page(tmp_path):
    path = write_comparison(tmp_path, made_study(models=3), lifelong="hpmn")
    assert not {"The data set", "Case studies"} & set(headings(path))


def test_a_run_without_artifact_is_said_to_be_missing(dataset, tmp_path):
    (tmp_path / "runs").mkdir()
    path = write_comparison(tmp_path, made_study(models=3), lifelong="hpmn", dataset=dataset, runs=tmp_path / "runs")
    assert "No case studies of HPMN: it was not trained." in text_of(path)


def test_an_artifact_of_other_data_is_not_read(dataset, tmp_path):
    other = tiny_dataset(tmp_path / "other", num_items=30)
    tiny_artifact(tmp_path / "runs" / "hpmn-seed0" / "artifact", other)
    text = text_of(
        write_comparison(tmp_path, made_study(models=3), lifelong="hpmn", dataset=dataset, runs=tmp_path / "runs")
    )
    assert "No case studies of HPMN: the field 'item' has" in text


def test_the_pair_is_read_from_the_record_whoever_the_reference_is():
    study = made_study(models=3)
    pair = pair_difference(study, "hpmn")
    assert (pair.value, pair.low, pair.high) == pytest.approx((0.01, 0.006, 0.014))
    assert pair_difference(study, "counts").value == pytest.approx(-0.02)
    assert pair_difference(study.model_copy(update={"reference": "counts"}), "hpmn") is None


def test_a_pair_without_the_reference_is_tested_on_the_logits_of_their_runs(dataset, tmp_path):
    examples = dataset.examples("test")
    study = scored_study(dataset, tmp_path / "runs")
    pair = pair_difference(study, "hpmn", dataset=dataset, runs=tmp_path / "runs")
    samples = {
        name: Sample.of(examples.label_NT[:, 0], np.load(tmp_path / "runs" / f"{name}-seed0" / "logits-test.npy")[:, 0],
                        examples.user_N)
        for name in ("hpmn", "popularity")
    }  # fmt: skip
    runs = {name: Runs(name, [sample]) for name, sample in samples.items()}
    assert pair == compare(runs, reference="popularity", resamples=20)[0].differences["auc"]


def scored_study(dataset, runs):
    """HPMN and popularity have runs; the reference, counts, is worse than both."""
    study = made_study(models=3)
    labels, rng = dataset.examples("test").label_NT, np.random.default_rng(0)
    for noise, name in enumerate(("hpmn", "popularity"), 1):
        folder = runs / f"{name}-seed0"
        folder.mkdir(parents=True)
        np.save(folder / "logits-test.npy", labels + noise * rng.normal(size=labels.shape))
        next(result for result in study.results if result.model == name).save(folder / "result-test.json")
    return Comparison.model_validate({**study.model_dump(), "reference": "counts", "resamples": 20})


def test_the_data_set_table_counts_what_is_there(dataset):
    rows = {row[0]: row[1] for row in dataset_section(dataset).tables[0].rows}
    lengths = np.diff(dataset.histories.offset_U)
    assert rows["users"] == 40
    assert rows["events of a user, median"] == int(np.median(lengths))
    assert rows["events of a user, longest"] == lengths.max()
    assert rows["test examples"] == len(dataset.examples("test"))
    assert "in proportion to how often items occur" in rows["negatives"]
    assert rows["cut times"].count("UTC") == 2
