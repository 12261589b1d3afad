"""Devices and their speed, compilation, and interruption by signals."""

import ctypes
import importlib.util
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal

import torch

from looped.config import Device, RunConfig
from looped.nn.native.block import LARGEST
from looped.nn.native.library import find_compiler

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a training after its current step, with a checkpoint."""


def find_device(device: Device) -> Literal["cpu", "cuda", "mps"]:
    """The kind of device; auto is the fastest available kind.

    Raises:
        ValueError: this machine has no device of that kind.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if (device == "cuda" and not cuda) or (device == "mps" and not mps):
        raise ValueError(f"device={device!r}: this machine has no {device} devices")
    return device


def computes_in_bf16(device: str) -> bool:
    """Whether the processor has bfloat16 arithmetic; otherwise bfloat16 is emulated slowly."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Inside this context, float32 matrix products on CPUs with AVX-512 are computed by oneDNN.

    MKL, torch's default, uses half of the vector width of AMD's processors. oneDNN may round to bfloat16 here,
    but does so on processors with AMX only, which therefore keep MKL.
    """
    before = torch.get_float32_matmul_precision()
    capable = torch.backends.cpu.get_cpu_capability() == "AVX512" and not torch.cpu._is_amx_tile_supported()
    try:
        if device.type == "cpu" and capable:
            torch.set_float32_matmul_precision("medium")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def keep_freed_memory() -> None:
    """Tell glibc to keep memory that is freed, up to 256 MB. Returning it and getting it again takes 5% to 10% of a
    small training step on CPUs."""
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_THRESHOLD, 32 << 20)
        set_option(M_TRIM_THRESHOLD, 256 << 20)


def matmul_peak(device: torch.device, bf16: bool) -> float:
    """FLOPs per second of a large matrix product in the precision of the training: the best of a few, measured in 0.1
    seconds."""
    size = 8192 if device.type == "cuda" else 512
    a = torch.ones(size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32).normal_(
        generator=torch.Generator(device).manual_seed(0)
    )
    best, until = float("inf"), time.perf_counter() + 0.1
    while time.perf_counter() < until or best == float("inf"):
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def peak_memory(device: torch.device) -> int:
    """The largest memory use so far, in bytes: of tensors on a GPU, otherwise of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


def should_compile(setting: bool | None, device: torch.device) -> bool:
    """Whether to use compiled code. None does if a compiler is available.

    Raises:
        ValueError: setting=True, and there is no compiler.
    """
    if device.type == "cuda":
        possible = importlib.util.find_spec("triton") is not None
    else:
        possible = device.type == "cpu" and find_compiler() is not None
    if setting and not possible:
        raise ValueError(f"train.compile=True: found no compiler for {device.type}; expected None or False")
    return possible if setting is None else setting


def uses_native(run: RunConfig, device: torch.device) -> bool:
    """Whether a training computes its blocks in C++, as far as they have such a form, and compiles nothing else."""
    return device.type == "cpu" and run.model.d_model <= LARGEST and run.train.compile is None


class Interrupt:
    """Records the first of the `SIGNALS` inside its context. A second one has its usual effect.

    Only the main thread can handle signals. In other threads this context does nothing. SIGHUP stays ignored under
    `nohup`.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal; 0 before it arrives."""
        self.outside = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            noted = [number for number in SIGNALS if not (number == signal.SIGHUP and ignored)]
            self.outside = {number: signal.signal(number, self._note) for number in noted}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.__exit__()

    def __exit__(self, *error: object) -> None:
        for number, handler in self.outside.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
