"""One example for the help of each command. Those of a project that `lifelong new` made follow one another."""

EXAMPLES: dict[str, str] = {
    "try": "lifelong try --exit",
    "new": "lifelong new project shop && cd shop",
    "prepare": "lifelong prepare table log.csv --mapping mapping.toml --out data",
    "tune": "lifelong tune data --model tally --trials 20 --out tuned.toml",
    "train": "lifelong train data --model tally --out artifact",
    "evaluate": "lifelong evaluate artifact data --delay 0s,1h,1d",
    "compare": "lifelong compare data --models tally,counts,popularity --seeds 3 --out report",
    "paper": "lifelong paper amazon reviews_Electronics_5.json.gz --out report",
    "backfill": "lifelong backfill artifact data --store rocksdb://store --event-log",
    "switch": "lifelong switch --store rocksdb://store",
    "ingest": "lifelong ingest artifact --store rocksdb://store --from new.csv --mapping mapping.toml",
    "score": "lifelong score artifact --store rocksdb://store --user ada --items coffee,soap --explain",
    "verify": "lifelong verify artifact --store rocksdb://store",
    "serve": "lifelong serve artifact --store rocksdb://store --port 8000",
    "forget": "lifelong forget ada --store rocksdb://store",
    "export": "lifelong export --store rocksdb://store --user ada",
    "backup": "lifelong backup rocksdb://store monday",
    "models": "lifelong models",
    "doctor": "lifelong doctor --store rocksdb://store",
    "demo": "lifelong demo --minutes 2 --out demo",
}
"""Command -> a command line."""
