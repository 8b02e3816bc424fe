"""How much memory the KV cache may take."""

import os

import torch

CPU_SHARE = 0.25  # of what is available: the rest is for the caches that files are read through
MAX_CPU_BYTES = 4 << 30
CUDA_SHARE = 0.6  # of what is free beside the weights: the rest is for activations


def free_bytes(device: torch.device) -> int:
    """Bytes for the KV cache on a device, from what is free there now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(CUDA_SHARE * (free + unused))  # torch keeps what it freed for its next tensors
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(MAX_CPU_BYTES, int(CPU_SHARE * pages))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
