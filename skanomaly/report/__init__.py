"""What is left on disk for a person to look at."""

from skanomaly.report._html import write_report

__all__ = ["write_report"]
