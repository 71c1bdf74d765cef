"""Whether there is a CUDA device, asked of the driver itself: in milliseconds, and without loading a runtime."""

import ctypes


def cuda_devices() -> int:
    """CUDA devices that this process may use; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
