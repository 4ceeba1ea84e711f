"""What every test gets: seeds, one thread, no network, and property tests that draw the same examples every time."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
from collections.abc import Iterator

# Before the hub client is imported anywhere: a look-up of weights then fails at once instead of trying for 47 s.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("repository", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("repository")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Seed the global generators, and put the switches of torch that a test may turn back to where they were."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the libraries under us draw from the global generator
    torch.manual_seed(0)
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_default_dtype(dtype)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Several test processes share the cores; more threads would only make them wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test leave this machine: nothing at run time may depend on a network. Processes may talk to each other."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address):
            raise OSError(f"the tests may not reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


def _is_loopback(address: object) -> bool:
    host = address[0] if isinstance(address, tuple) else str(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
