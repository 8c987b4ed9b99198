"""Where work runs: devices, the GPUs of this machine, memory."""
