"""The tile collector: kernels compiled and timed under many tile sizes; see ../README.md."""
