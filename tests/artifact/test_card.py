"""The model card of an artifact."""

import json
import shutil
from pathlib import Path

import pytest

from lifelong.artifact.card import model_card
from lifelong.artifact.folder import Artifact
from lifelong.artifact.manifest import make_manifest
from lifelong.cli.models import models
from lifelong.cli.terminal import Terminal
from lifelong.errors import ArtifactError
from lifelong.online.memory.codec import make_codec

SHOP = Path(__file__).parents[2] / "lifelong" / "cli" / "shop" / "artifact"


@pytest.fixture
def shop() -> Artifact:
    return Artifact.open(SHOP, verify="sizes")


def card(artifact: Artifact, **changes: object) -> str:
    return model_card(artifact.config.model_copy(update=changes), artifact.metrics)


def test_it_says_what_config_and_metrics_say(shop: Artifact) -> None:
    text = card(shop)
    for part in [
        "# Tally",
        "protocol temporal; negatives were drawn, by popularity",
        "Trained on 2025-01-06 to 2026-04-29, validated on 2026-04-29 to 2026-06-29",
        "AUC 0.8499, log loss 0.4551, calibration error 0.0207 on 22,806 validation examples",
        "once the setting `base_rate` says",
        "Fields of an item: item, category, price; of a user: none",
        "Event types are not read",
        "is counted from its first event on, and otherwise is scored by its hash bucket",
        "lifelong serve ARTIFACT --store",
    ]:
        assert part in text


def test_it_gives_the_bytes_that_a_store_keeps(shop: Artifact) -> None:
    size = make_codec("fp32", shop.config.memory or ()).size
    assert f"keeps {size:,} bytes a user" in card(shop)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"calibrator": None}, "Not calibrated"),
        ({"base_rate": 0.25}, "labels were logged, 25.00% of them positive"),
        ({"memory": ()}, "did not have is scored by its hash bucket"),
        ({"memory": None, "not_served": "it reads the raw history"}, "It cannot be served: it reads the raw history."),
    ],
)
def test_what_an_artifact_lacks_is_said(shop: Artifact, changes: dict[str, object], words: str) -> None:
    assert words in card(shop, **changes)


def test_its_words_are_no_part_of_the_id_and_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(SHOP, folder)
    (folder / "README.md").unlink()
    (folder / "manifest.json").write_text(make_manifest(folder).model_dump_json())
    (folder / "README.md").write_text("a card")
    with pytest.raises(ArtifactError, match="is not in the manifest"):
        Artifact.open(folder)
    (folder / "manifest.json").write_text(make_manifest(folder).model_dump_json())
    assert Artifact.open(folder).id == Artifact.open(SHOP).id
    (folder / "README.md").write_text("A card")
    with pytest.raises(ArtifactError, match="altered"):
        Artifact.open(folder)


@pytest.mark.torch
def test_export_writes_it(dataset, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("torch")
    import lifelong

    trained = lifelong.train(dataset, "popularity", out=tmp_path / "artifact", progress=False)
    assert (trained.path / "README.md").read_text() == card(trained)
    assert "It cannot be served" in card(trained)


def test_a_command_prints_it(shop: Artifact) -> None:
    reply = models(Terminal(as_json=False), card=SHOP)
    assert str(reply.summary[0]) == card(shop)
    assert reply.document == {"artifact": shop.id, "card": card(shop)}
    assert json.dumps(reply.document)
