"""One pass of a GRU layer, forward and backward: the compiled scan against `torch.nn.GRU`, plain and packed.

    python benchmarks/gru_pass.py
    python benchmarks/gru_pass.py --users 8 --events 442 --inputs 128 --width 48

Histories are all of `--events` events, or of 1 to `--events` (ragged): `nn.GRU` steps over the padding, packed
`nn.GRU` and the scan do not. Each in a process of its own, one thread, single precision; processor seconds of the best
of several repetitions, interleaved over rounds, as other work on the machine lengthens the time by the clock. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

FORMS = ("nn.GRU", "packed nn.GRU", "scan")
CHILD = """
import json, sys, time, torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from lifelong.offline.nn.scan import gru_scan
torch.set_num_threads(1)
torch.manual_seed(0)
form, lengths, users, events, inputs, width, repeats = *sys.argv[1:3], *map(int, sys.argv[3:])
gru = torch.nn.GRU(inputs, width, batch_first=True)
value = torch.randn(users, events, inputs, requires_grad=True)
weight, length = torch.randn(users, events, width), torch.full((users,), events)
if lengths == "ragged":
    length[1:] = torch.randint(1, events + 1, (users - 1,))
def run():
    if form == "scan":
        return gru_scan(gru, value, length)
    if form == "nn.GRU":
        return gru(value)[0]
    packed = pack_padded_sequence(value, length, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(packed)[0], batch_first=True)[0]
best = [float("inf"), float("inf")]
for _ in range(repeats + 1):
    start = time.thread_time()
    hidden = run()
    middle = time.thread_time()
    hidden.backward(weight)
    end = time.thread_time()
    best = [min(best[0], middle - start), min(best[1], end - middle)]
print(json.dumps([*best, int(length.sum())]))
"""


def measure(
    lengths: str, shape: list[int], repeats: int, rounds: int, forms: tuple[str, ...] = FORMS
) -> dict[str, object]:
    """Seconds of each form, printed, and as a record."""
    seconds, events = {form: [float("inf")] * 2 for form in forms}, 0
    for _ in range(rounds):
        for form, best in seconds.items():
            words = [form, lengths, *map(str, [*shape, repeats])]
            done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
            *found, events = json.loads(done.stdout.splitlines()[-1])
            seconds[form] = [min(pair) for pair in zip(best, found, strict=True)]
    print(f"{lengths} lengths, {events:,} events")
    for form, (forward, backward) in seconds.items():
        print(f"  {form:14} forward {forward * 1e3:7.1f} ms   backward {backward * 1e3:7.1f} ms")
    total = {form: sum(both) for form, both in seconds.items()}
    ratios = {form: round(total[form] / total["scan"], 2) for form in forms if form != "scan"}
    return {"events": events, "seconds": seconds, "times_as_fast_as": ratios}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 128), ("events", 1000), ("inputs", 32), ("width", 32), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--forms", default=",".join(FORMS), help="scan and others; packed takes a hundred times as long"
    )
    arguments = parser.parse_args()
    shape = [arguments.users, arguments.events, arguments.inputs, arguments.width]
    forms = tuple(arguments.forms.split(","))
    found = {
        lengths: measure(lengths, shape, arguments.repeats, arguments.rounds, forms) for lengths in ("equal", "ragged")
    }
    print(json.dumps({"users_events_inputs_width": shape, **found}))


if __name__ == "__main__":
    main()
