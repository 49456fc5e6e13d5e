"""Bytes that nobody meant, for everything that reads bytes from outside: a value or an error of ours, and nothing else.

    tests/assets/corpus/TARGET/*  --altered-->  TARGETS[TARGET](bytes) --> taken | refused | an exception: a fault

`python -m support.fuzzing TARGET SECONDS` (in `tests/`) searches on: with coverage if `atheris` is installed, else by
alterations alone. It ends with an error at a fault, which it leaves as a file to be kept in the corpus.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
CORPUS = ASSETS / "corpus"
TEXTS = (b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"[", b"{}", b"null", b"1e999", b"\\ud800")
ODD = (0, 1, -1, 127, 255, 2**15, 2**31 - 1, 2**32, 2**62, 2**63 - 1, 10**12)

Target = Callable[[bytes], bool]


def seeds(target: str) -> list[bytes]:
    """The corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def altered(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The bytes after one to four small alterations."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(found) + 1), rng.randrange(7)
        if kind == 0 and found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 2:
            del found[at : at + rng.randint(1, 16)]
        elif kind == 3:
            found[at:at] = str(rng.choice(ODD)).encode()
        elif kind == 4:
            found[at : at + 8] = (rng.choice(ODD) % 2**64).to_bytes(8, "little")
        elif kind == 5:
            part = rng.choice(others)
            found[at:at] = part[rng.randrange(len(part) + 1) :][: rng.randint(1, 64)]
        else:
            found[at:at] = rng.choice(TEXTS)
    return bytes(found)


def alterations(target: str, seed: int) -> Iterator[bytes]:
    """Endlessly many inputs, made from the corpus; equal seeds give equal inputs."""
    rng, corpus = random.Random(seed), seeds(target)
    while True:
        yield altered(rng.choice(corpus), corpus, rng)


def records() -> Target:
    """Records of memories, their checksum set right: one byte chooses codec and layout."""
    import numpy as np

    from lifelong.artifact.folder import FieldLayout
    from lifelong.errors import StoreError
    from lifelong.online.memory.codec import CODECS, make_codec
    from lifelong.tally.plan import CellPacking

    packing = CellPacking(cells_F=(8, 4), values_F=(64, 2**16))
    slots = FieldLayout(name="slot", shape=(2, 3))
    cells = FieldLayout(name="cell", shape=(12, 2), dtype="int16", cells=packing)
    made = [make_codec(name, layout) for name in CODECS for layout in ((slots,), (slots, cells), (cells,))]

    def target(data: bytes) -> bool:
        codec = made[data[0] % len(made)] if data else made[0]
        record = bytearray(data[1:].ljust(codec.size, b"\0")[: codec.size])
        record[:4] = bytes([1, codec.number, 0, 0])
        try:
            # Once, since a codec writes no numbers as near zero as it could read.
            states = codec.decode(codec.encode(codec.decode([codec._as_stored(bytes(record))])))
        except StoreError:
            return False
        again = codec.decode(codec.encode(states))
        assert states.count_B == again.count_B and states.last_time_B == again.last_time_B
        for name, value in states.fields.items():
            np.testing.assert_array_equal(value, again.fields[name])
        return True

    return target


def files(ending: str) -> Callable[[], Target]:
    """Files of events: what was applied once is not applied again, bad lines or not."""

    def make() -> Target:
        from lifelong.artifact.folder import Artifact
        from lifelong.errors import LifelongError
        from lifelong.online.ingestion.files import ingest
        from lifelong.online.store.ram import InMemoryStore

        artifact = Artifact.open(ASSETS / "tiny_artifact")
        path = Path(tempfile.mkdtemp(prefix="fuzz-")) / f"log.{ending}"

        def target(data: bytes) -> bool:
            path.write_bytes(data)
            store = InMemoryStore()
            try:
                first = ingest(artifact, store, path, on_bad="skip", source="fuzz")
                assert not ingest(artifact, store, path, on_bad="skip", source="fuzz").applied
            except LifelongError:
                return False
            return first.applied > 0

        return target

    return make


def artifacts() -> Target:
    """Artifacts of which one file is another one, under a manifest that fits; the first byte chooses the file."""
    from lifelong.artifact.folder import Artifact
    from lifelong.artifact.manifest import make_manifest
    from lifelong.errors import LifelongError
    from lifelong.online.scoring.scorer import Scorer
    from lifelong.online.store.ram import InMemoryStore

    folder = Path(tempfile.mkdtemp(prefix="fuzz-")) / "artifact"
    shutil.copytree(ASSETS / "tiny_artifact", folder)
    # A graph is for onnxruntime to read; weights are for training.
    names = sorted(
        path for path in folder.rglob("*") if path.suffix in (".npy", ".json") and path.name != "manifest.json"
    )

    def target(data: bytes) -> bool:
        path = names[data[0] % len(names)] if data else names[0]
        good = path.read_bytes()
        try:
            path.write_bytes(data[1:])
            (folder / "manifest.json").write_text(make_manifest(folder).model_dump_json())
            scorer = Scorer(Artifact.open(folder), InMemoryStore())
            scorer.score("u1", ["i1", "i2", "never seen"], time=1_700_000_000)
        except LifelongError:
            return False
        finally:
            path.write_bytes(good)
        return True

    return target


def bodies() -> Target:
    """Bodies of requests; the first byte chooses the address."""
    from lifelong.artifact.folder import Artifact
    from lifelong.online.serving.app import create_app
    from lifelong.online.store.ram import InMemoryStore
    from support.client import Client

    client = Client(create_app(Artifact.open(ASSETS / "tiny_artifact"), InMemoryStore()))
    addresses = [("POST", "/v1/events"), ("POST", "/v1/score"), ("POST", "/v1/explain"), ("PUT", "/v1/items")]

    def target(data: bytes) -> bool:
        method, address = addresses[data[0] % len(addresses)] if data else addresses[0]
        reply = client.request(method, address, content=data[1:], headers={"Content-Type": "application/json"})
        if reply.status_code == 200:
            return True
        assert reply.status_code in (413, 422) or "OverloadedError" in reply.text, (reply.status_code, reply.text)
        assert set(reply.json()["error"]) == {"type", "found", "expected", "fix"}
        return False

    return target


TARGETS: dict[str, Callable[[], Target]] = {
    "records": records,
    "csv": files("csv"),
    "jsonl": files("jsonl"),
    "artifacts": artifacts,
    "bodies": bodies,
}


def search(target: str, seconds: float) -> None:
    """Try alterations for a time; a fault ends it, and leaves its input as a file."""
    run, until, number = TARGETS[target](), time.monotonic() + seconds, 0
    for data in alterations(target, seed=time.time_ns()):
        if time.monotonic() > until:
            break
        number += 1
        try:
            run(data)
        except BaseException:
            path = Path(f"fault-{target}-{hashlib.sha256(data).hexdigest()[:12]}")
            path.write_bytes(data)
            sys.stderr.write(f"fault: {path.resolve()}\n")
            raise
    sys.stdout.write(f"{target}: {number:,} inputs, no fault\n")


def search_with_coverage(target: str, seconds: float) -> None:
    """As `search`, by libFuzzer: inputs that reach new lines are altered on. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["lifelong"]):
        import lifelong.artifact.folder
        import lifelong.online.ingestion.files
        import lifelong.online.memory.codec
        import lifelong.online.scoring.scorer
        import lifelong.online.serving.app  # noqa: F401
    run = TARGETS[target]()
    grown = tempfile.mkdtemp(prefix=f"fuzz-{target}-")
    options = [f"-max_total_time={int(seconds)}", f"-artifact_prefix=fault-{target}-", "-rss_limit_mb=4096"]
    atheris.Setup(["fuzz", grown, str(CORPUS / target), *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    name, limit = sys.argv[1], float(sys.argv[2])
    try:
        import atheris  # noqa: F401
    except ModuleNotFoundError:
        search(name, limit)
    else:
        search_with_coverage(name, limit)
