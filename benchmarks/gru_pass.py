"""One pass of a GRU layer, forward and backward: the compiled scan against `torch.nn.GRU`.

Each in a process of its own, one thread, single precision; the best of several repetitions, interleaved over rounds.

    python benchmarks/gru_pass.py
    python benchmarks/gru_pass.py --users 8 --events 442 --inputs 128 --width 48

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

CHILD = """
import json, sys, time, torch
from lifelong.nn.scan import gru_scan
torch.set_num_threads(1)
torch.manual_seed(0)
form, users, events, inputs, width, repeats = sys.argv[1], *map(int, sys.argv[2:])
gru = torch.nn.GRU(inputs, width, batch_first=True)
value = torch.randn(users, events, inputs, requires_grad=True)
weight, length = torch.randn(users, events, width), torch.full((users,), events)
best = [float("inf"), float("inf")]
for _ in range(repeats + 1):
    start = time.perf_counter()
    hidden = gru_scan(gru, value, length) if form == "scan" else gru(value)[0]
    middle = time.perf_counter()
    hidden.backward(weight)
    end = time.perf_counter()
    best = [min(best[0], middle - start), min(best[1], end - middle)]
print(json.dumps(best))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 128), ("events", 1000), ("inputs", 32), ("width", 32), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    shape = [arguments.users, arguments.events, arguments.inputs, arguments.width]
    seconds = {form: [float("inf")] * 2 for form in ("nn.GRU", "scan")}
    for _ in range(arguments.rounds):
        for form, best in seconds.items():
            words = [form, *map(str, [*shape, arguments.repeats])]
            done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
            seconds[form] = [min(pair) for pair in zip(best, json.loads(done.stdout.splitlines()[-1]), strict=True)]
    for form, (forward, backward) in seconds.items():
        print(f"{form:7} forward {forward * 1e3:7.1f} ms   backward {backward * 1e3:7.1f} ms")
    ratio = round(sum(seconds["nn.GRU"]) / sum(seconds["scan"]), 2)
    print(json.dumps({"users_events_inputs_width": shape, "seconds": seconds, "ratio": ratio}))


if __name__ == "__main__":
    main()
