"""The layout collector: real programs timed under requested layouts. See README.md one folder up."""
