"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared():
    """Folder of real images and weights that lies beside the project."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SKANOMALY_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip(f"real images and weights are not at {folder} (set SKANOMALY_SHARED)")
    return folder
