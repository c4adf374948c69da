"""Collectors: they compile real kernels, time them, and write what the package learns from."""
