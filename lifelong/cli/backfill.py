"""`lifelong backfill`: every user's memory at once, by the batch path."""

from __future__ import annotations

from dataclasses import asdict

from lifelong.cli.options import ArtifactPath, DataPath, NewCodec, StoreUrl, Until
from lifelong.cli.terminal import Reply, Terminal


def backfill(
    terminal: Terminal,
    artifact: ArtifactPath,
    data: DataPath,
    *,
    store: StoreUrl,
    until: Until = None,
    codec: NewCodec = None,
) -> Reply:
    """Build the memory of every user of a dataset and write them to a store."""
    from lifelong.cli.opening import open_pair
    from lifelong.data.dataset import Dataset
    from lifelong.training import backfill as backfilling

    dataset = Dataset(data)
    with open_pair(artifact, store, read_only=False) as (opened, memories), terminal.progress("users") as advance:
        report = backfilling.backfill(opened, dataset, memories, until=until, progress=advance, codec=codec)
    document = asdict(report)
    return Reply(document, [", ".join(f"{name.replace('_', ' ')} {number}" for name, number in document.items())])
