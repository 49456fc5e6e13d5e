"""Wrote `tests/assets/version_0_1_0.tar.xz`: what the release 0.1.0 leaves on a disk, and what it answers from it.

It ran in a checkout of that release (`git worktree add ../v010 3e459ef`, with `lightning` installed), by
`PYTHONPATH=../v010 python tests/assets/make_version_0_1_0.py`. Most weights are set to 0, the others to few
values, before the artifact is written, so that the archive is small.
"""

import csv
import json
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch

from lifelong.config import RunConfig
from lifelong.data.dataset import Dataset
from lifelong.training import trainer

OUT = Path(__file__).parent / "version_0_1_0.tar.xz"
MODELS = {"tally": {"state": 1024, "embedding": 4, "width": 4}, "hpmn": {"embedding": 4, "width": 4}}
NOW = 1_602_000_000
START = 1_600_000_000


def run(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "lifelong", *words], check=True, capture_output=True, text=True).stdout


def write_logs() -> None:
    draw = random.Random(1)
    rows = []
    for user in range(8):
        time = START + 977 * user
        for _ in range(14):
            time += draw.randint(3_000, 90_000)
            item = draw.choice([user % 5, draw.randrange(5)])
            rows.append((f"u{user}", f"i{item}", time, f"c{item % 2}"))
    rows.sort(key=lambda row: row[2])
    for name, part in (("log.csv", rows[:-6]), ("new.csv", rows[-6:])):
        with Path(name).open("w", newline="") as file:
            csv.writer(file).writerows([("user", "item", "time", "category"), *part])
    Path("map.toml").write_text('user = "user"\nitem = "item"\ntime = "time"\nfields = ["category"]\n')


def thin(model: torch.nn.Module) -> None:
    """Leave one weight in twenty of the large matrices, rounded to 1/8."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 100:
                kept = torch.rand(parameter.shape, generator=generator) < 0.05
                drawn = torch.randint(-4, 5, parameter.shape, generator=generator) / 8
                parameter.copy_(torch.where(kept, drawn, torch.zeros(())))


def main() -> None:
    write_logs()
    run("prepare", "table", "log.csv", "--mapping", "map.toml", "--out", "data", "--set", "min_count=1")
    finish = trainer._Run.finish

    def thinned(self: object, model: torch.nn.Module) -> object:
        thin(model)
        return finish(self, model)

    trainer._Run.finish = thinned
    answers = {}
    for name, settings in MODELS.items():
        config = RunConfig.model_validate({"model": settings, "train": {"max_epochs": 1, "threads": 1}})
        trainer.train(Dataset(Path("data")), name, Path(name), config=config, progress=False)
        store = f"rocksdb://store-{name}"
        run("backfill", name, "data", "--store", store, "--event-log")
        run("ingest", name, "--store", store, "--from", "new.csv")
        words = ("--store", store, "--user", "u1", "--items", "i0,i1,i2,i3,never", "--time", str(NOW), "--json")
        answers[name] = {
            "scores": {one["item"]: one["score"] for one in json.loads(run("score", name, *words))["scores"]},
            "metrics": {
                key: value["value"]
                for key, value in json.loads(run("evaluate", name, "data", "--json"))["metrics"].items()
            },
        }
        for log in Path(f"store-{name}/db").glob("LOG*"):
            log.unlink()
    Path("answers.json").write_text(json.dumps(answers, indent=1))
    with tarfile.open(OUT, "w:xz", preset=9) as archive:
        for path in sorted(Path().iterdir()):
            archive.add(path)


if __name__ == "__main__":
    here = tempfile.mkdtemp()
    try:
        import os

        os.chdir(here)
        main()
    finally:
        shutil.rmtree(here)
