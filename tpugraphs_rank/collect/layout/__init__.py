"""The layout collector: real programs timed under requested layouts; see ../README.md."""
