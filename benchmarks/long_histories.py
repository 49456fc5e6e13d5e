"""Peak memory of a training step of `hpmn` on one user, by the length of her history: in chunks, and whole.

    python benchmarks/long_histories.py
    python benchmarks/long_histories.py --lengths 1000,100000 --chunk 1024

Each length in a process of its own, one thread; `rest` is the peak before the step (interpreter, libraries, model, and
the batch's numbers), `step` what the step adds to it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

CHILD = """
import json, resource, sys, time, torch
from contextlib import nullcontext
from lifelong.models import build
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.training.chunks import losses_of
events, chunk, targets = map(int, sys.argv[1:])
torch.set_num_threads(1)
torch.manual_seed(0)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def step(batch):
    for loss in losses_of(model, batch, 1.0, chunk=chunk or None, autocast=nullcontext):
        loss.total.backward()
model = build("hpmn", INPUTS, {}).train()
step(random_batch([64], targets=2))
batch = random_batch([events], targets=targets)
batch.position_BC[:] = batch.position_BC.sort(dim=1).values
rest, start = peak(), time.process_time()
step(batch)
print(json.dumps({"rest": round(rest), "step": round(peak() - rest), "seconds": round(time.process_time() - start, 2)}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1000,10000,100000", help="events")
    parser.add_argument("--chunk", type=int, default=1024, help="events of a chunk")
    parser.add_argument("--share", type=float, default=0.1, help="targets per event")
    arguments = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    for form, chunk in (("chunks", arguments.chunk), ("whole", 0)):
        for events in map(int, arguments.lengths.split(",")):
            words = [str(events), str(chunk), str(max(2, int(events * arguments.share)))]
            done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
            found[f"{form} {events}"] = measured = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{form:7} {events:>8,} events: {measured['rest']:>6,} MiB before, {measured['step']:>6,} MiB for the "
                f"step, {measured['seconds']:.2f} processor seconds",
                flush=True,
            )
    print(json.dumps({"chunk": arguments.chunk, "mebibytes": found}))


if __name__ == "__main__":
    main()
