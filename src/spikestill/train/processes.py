"""The processes that train one network together: who they are, and what they agree on.

`torchrun` or SLURM starts them; Lightning's cluster environments know how they find each other.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, distributed

from spikestill.data.seeds import derive
from spikestill.nn import Poisson
from spikestill.types import InputError

__all__ = [
    "ALONE",
    "Processes",
    "SharedError",
    "cluster_environment",
    "is_shared",
    "own_rank",
    "together",
    "was_launched",
]

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up: one of them may have a download to do."""


class SharedError(InputError):
    """Wrong input that all processes were told of."""


def is_shared(error: BaseException | None) -> bool:
    """Whether all processes were told of this error, or of what it came from."""
    return error is not None and (isinstance(error, SharedError) or is_shared(error.__cause__))


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; by default it is alone.

    Attributes:
        rank: its number, from 0.
        count: how many they are.
        local_rank: its number on this machine, from 0.
        local_count: how many they are on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """Which part of every batch is this process's, of how many."""
        return self.rank, self.count

    @property
    def machines(self) -> int:
        """On how many machines they run."""
        return self.count // self.local_count

    def gathered(self, value: Any) -> list[Any]:
        """What each process gave, in their order; every one of them has to ask."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def reduced(self, values: Tensor, how: Literal["sum", "max"] = "sum") -> Tensor:
        """Sum or maximum over all processes, elementwise; every one of them has to ask."""
        if self.count == 1:
            return values
        values = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(values, distributed.ReduceOp.SUM if how == "sum" else distributed.ReduceOp.MAX)
        return values

    def decided(self, choice: bool, device: torch.device) -> bool:
        """What the first process chose; every one of them has to ask."""
        chosen = torch.tensor(float(choice and self.is_first), device=device)
        return bool(self.reduced(chosen, "max")) if self.count > 1 else choice

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """Wrong input that one process meets in this block stops all of them, with the same line.

        Raises:
            SharedError: in every process, where one of them met it.
        """
        own: InputError | None = None
        try:
            yield
        except InputError as error:
            own = error
        complaints = [text for text in self.gathered(None if own is None else str(own)) if text is not None]
        if own is not None and self.count == 1:
            raise own
        if complaints:
            raise SharedError(complaints[0]) from own

    def own_seed(self, seed: int) -> int:
        """A seed of this process's own, unrelated to those of the others; alone it keeps the one it is given."""
        return seed if self.count == 1 else derive(seed, "process", self.rank)

    def draw_apart(self, encoder: Poisson, device: torch.device) -> None:
        """Of several, give each its own stream of an encoder that is seeded."""
        if self.count > 1 and encoder.seed is not None:
            encoder.random_state = torch.Generator(device).manual_seed(self.own_seed(encoder.seed)).get_state()


ALONE = Processes()


def together(device: str = "cpu") -> Processes:
    """The processes that were started together with this one; the first call connects them.

    Args:
        device: the recipe's; on GPUs they speak through NCCL, elsewhere through gloo.
    """
    environment = cluster_environment()
    if environment is None or environment.world_size() == 1:
        return ALONE
    if not distributed.is_initialized():
        on_gpu = device.split(":")[0] != "cpu" and torch.cuda.is_available()
        os.environ.setdefault("MASTER_ADDR", environment.main_address)
        os.environ.setdefault("MASTER_PORT", str(environment.main_port))
        if on_gpu:
            torch.cuda.set_device(environment.local_rank())
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            rank=environment.global_rank(),
            world_size=environment.world_size(),
            timeout=_PATIENCE,
        )
        atexit.register(_leave)
    rank, count = distributed.get_rank(), distributed.get_world_size()
    return Processes(rank, count, environment.local_rank(), _on_this_machine(count))


def cluster_environment() -> Any:
    """Lightning's view of what started this process; None where nothing did that starts several.

    Raises:
        InputError: for a SLURM job whose tasks are not counted by machine.
    """
    if not any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS")):
        return None  # without a look at Lightning, which takes seconds to load
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    # A job that SLURM ended is continued by --resume, which knows more than Lightning's own requeueing.
    try:
        return SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
    except RuntimeError as error:
        raise InputError(f"SLURM: {error}") from error


def was_launched() -> bool:
    """Whether something started this process as one of several."""
    environment = cluster_environment()
    return environment is not None and bool(environment.world_size() > 1)


def own_rank() -> int:
    """This process's number among those that were started together, whether they are connected yet or not."""
    environment = cluster_environment()
    return 0 if environment is None else int(environment.global_rank())


def _on_this_machine(count: int) -> int:
    told = (os.environ.get(name) for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"))
    return next((int(number) for number in told if number), count)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
