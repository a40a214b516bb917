"""Fixtures of the tests with anomalib's own models."""

import socket

import pytest


@pytest.fixture
def no_network(monkeypatch):
    """Let whatever tries to download something fail."""

    def connect(self, address):
        raise AssertionError(f"a download was tried: {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
