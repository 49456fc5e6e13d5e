"""Run settings: TOML, `--set key=value`, validation; every problem is reported at once."""
