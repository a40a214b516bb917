"""``python -m skanomaly.cli``."""

from skanomaly.cli import app

app(prog_name="skanomaly")
