"""The devices that llama.cpp computes with. Imports llama.cpp."""

from collections.abc import Mapping, Sequence
from typing import Any

import xllamacpp

CPU = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU


def gpu_memory(devices: Sequence[Mapping[str, Any]] | None = None) -> int | None:
    """Return the bytes of memory of all GPUs, which hold the model and its contexts; None without a GPU."""
    all_devices = xllamacpp.get_device_info() if devices is None else devices
    gpus = [device["memory_total"] for device in all_devices if device["type"] != CPU]
    return sum(gpus) if gpus else None
