"""One epoch of `tally` and of `hpmn` over the Complete Journey log: examples a second, and where the time goes.

    python benchmarks/epoch.py --threads 2
    python benchmarks/epoch.py --model hpmn --threads 1 --examples 200000 --set model.hops=3

`tally` is trained with its default settings, `hpmn` with those of the demo (width 48, one hop): each positive training
target once with its drawn negatives, in batches as large as those of a whole run, one validation of 20,000 examples at
the end; a small run before it compiles. The share of waiting is the time in which no batch was ready. Processor seconds
are those of all threads, the one that prepares batches included. The last line is JSON.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from printed import last_line

MODELS = ("tally", "hpmn")


def of_model(model: str, data: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    from lifelong.cli.demo import TRAINED
    from lifelong.config import load_config
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.training.settings import with_recipe
    from lifelong.offline.training.trainer import train

    dataset, own = Dataset(data), TRAINED[model] if model == "hpmn" else ()
    # A run of fewer examples would have smaller batches: see `with_recipe`.
    whole = with_recipe(load_config(None, own), model, dataset).train
    common = [
        *own,
        f"train.batch_events={whole.batch_events}",
        f"train.batch_targets={whole.batch_targets}",
        f"train.threads={options.threads}",
        "train.max_epochs=1",
        "train.validation_examples=20000",
        "train.validate_every=1.0",
        *options.changes,
    ]
    few = load_config(None, [*common, "train.max_examples=1000"])
    train(dataset, model, folder / f"{model}-first", config=few, progress=False)
    limit = [] if options.examples is None else [f"train.max_examples={options.examples}"]
    config, start = load_config(None, [*common, *limit]), time.process_time()
    measured = train(dataset, model, folder / model, config=config, progress=False).metrics
    processor = time.process_time() - start
    seconds = sum(measured["seconds"].get(stage, 0.0) for stage in ("wait", "train", "validate", "checkpoint"))
    seen = f"{measured['examples_seen']:,} labelled examples"
    print(f"{model}: {seen} in {seconds:.1f} s, {processor:.1f} processor seconds")
    for stage, share in measured["shares"].items():
        print(f"  {stage:10} {share:6.1%}")
    return {
        "examples": measured["examples_seen"],
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "examples_per_second_in_steps": measured["examples_per_second"],
        "examples_per_processor_second": round(measured["examples_seen"] / processor, 1),
        "shares": measured["shares"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--examples", type=int, help="labelled examples instead of a whole epoch")
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="section.key=value, as in training")
    options = parser.parse_args()

    from lifelong.offline.preparation.prepare import prepare

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data or prepare("completejourney", [], folder / "data").folder
        record = {model: of_model(model, data, folder, options) for model in options.model}
    print(last_line({"threads": options.threads, **record}))


if __name__ == "__main__":
    main()
