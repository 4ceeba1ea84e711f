"""The element-wise functions under torch.compile, and plainly where nothing can compile them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch

__all__ = ["compiled", "is_compiling_enabled"]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("spikestill")
_MOST_TIMESTEPS = 16
"""Above this, unrolled loops take longer to compile than they save."""
_MOST_VARIANTS = 256
"""Compilations of one function; torch's own limit of 8, after which it runs plainly and says nothing, is soon met."""


@functools.cache
def is_compiling_enabled() -> bool:
    """Whether element-wise functions are compiled: not with ``SPIKESTILL_COMPILE=0``, nor without a C++ compiler."""
    if os.environ.get("SPIKESTILL_COMPILE", "1") == "0":
        return False
    if not torch.cuda.is_available() and shutil.which(os.environ.get("CXX", "g++")) is None:
        _log.warning("no C++ compiler found: neurons run uncompiled, several times slower (install g++)")
        return False
    return True


@functools.cache
def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, compiled for any number of neurons; it is compiled anew for each T, dtype and neuron rule.

    The first of its arguments that is an integer is T.

    The plain function serves where compiling is off, inside another compilation, for more time steps than an
    unrolled loop is good for, and, said once, where compiling fails.
    """
    fast: Callable[P, R] | None = None
    failed = False
    seen: set[Any] = set()

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal failed, fast
        timesteps = next(value for value in args if isinstance(value, int))
        if failed or timesteps > _MOST_TIMESTEPS or torch.compiler.is_compiling() or not is_compiling_enabled():
            return function(*args, **kwargs)
        if fast is None:  # not before: it imports the compiler, which takes seconds
            fast = torch.compile(function, dynamic=True)
        variant = _variant(args)
        started = time.perf_counter()
        try:
            if variant in seen:
                return fast(*args, **kwargs)
            seen.add(variant)
            # Raised only where something is compiled: entering the patch costs more than a call does.
            with torch._dynamo.config.patch(recompile_limit=_MOST_VARIANTS), _without_remarks_on_cuda():
                result = fast(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            failed = True
            _log.warning("cannot compile (%s): neurons run uncompiled, slower", str(error).splitlines()[0])
            return function(*args, **kwargs)
        _log.info("compiled %s in %.1f s", function.__name__, time.perf_counter() - started)
        return result

    return run


@contextlib.contextmanager
def _without_remarks_on_cuda() -> Iterator[None]:
    """torch remarks, where it finds CUDA's compiler but no GPU, that it finds no GPU."""
    log = logging.getLogger("torch.utils.cpp_extension")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _variant(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the compiler specialises on: everything but the sizes, of which it knows 0 and 1 from the others."""
    modes: tuple[Any, ...] = (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())
    for value in args:
        if isinstance(value, torch.Tensor):
            sizes = tuple(min(size, 2) for size in value.shape)
            kind = (value.dtype, value.device, sizes, value.is_contiguous(), value.requires_grad)
            modes += (*kind, torch.is_autocast_enabled(value.device.type))
        else:
            modes += (value,)
    return modes
