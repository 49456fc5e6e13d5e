"""Where only a long memory can know the answer, hpmn does and a pooled history does not, with settings as they come."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from lifelong import PrepareSettings, evaluate, load_config, prepare, train

pytestmark = [pytest.mark.torch, pytest.mark.soak]


@pytest.mark.parametrize("seed", ["21", "22"])
@pytest.mark.parametrize("world", ["lag", "period"])
def test_hpmn_knows_what_a_pooled_history_cannot(world: str, seed: str, tmp_path: Path) -> None:
    settings = PrepareSettings(options={"world": world, "seed": seed})
    dataset = prepare("synthetic", [], tmp_path / "data", settings=settings)
    best = dataset.manifest.record["read"]["best_auc"]
    found = {}
    for model in ("hpmn", "dnn"):
        config = load_config(None, ["train.threads=1"])
        artifact = train(dataset, model, tmp_path / model, config=config, progress=False)
        found[model] = evaluate(artifact, dataset).metrics["auc"]
    assert found["hpmn"].low > found["dnn"].high
    assert found["hpmn"].value >= 0.5 + 0.8 * (best - 0.5)
