"""Starting a command as several processes on this machine, as ``torchrun`` does."""

from __future__ import annotations

import logging
from collections.abc import Sequence

__all__ = ["launch"]


def launch(processes: int, words: Sequence[str]) -> None:
    """Run a command in so many processes, and wait for them.

    Where one of them fails, the others are ended.

    Args:
        processes: how many.
        words: the command and its options.

    Raises:
        SystemExit: with the status of the process that failed first, which has said why.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # What torchrun would say about a failure is how it ended the others.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    options = ["--standalone", f"--nproc_per_node={processes}", "-m", "spikestill.cli"]
    try:
        torchrun.run(torchrun.parse_args([*options, *words]))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 1) from None
