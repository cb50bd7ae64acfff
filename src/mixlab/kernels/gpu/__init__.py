"""Triton kernels for CUDA devices; imported only where Triton is installed."""
