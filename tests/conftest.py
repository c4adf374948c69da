"""Settings of all tests."""

import os

import hypothesis

# TensorFlow is told to be quiet before a test imports it: its notes on CPU features hide failures.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The same examples on every run, so that a failure elsewhere is a failure here; and no deadline,
# since machines are shared and the first call of a function may compile it.
hypothesis.settings.register_profile("project", derandomize=True, deadline=None)
hypothesis.settings.load_profile("project")
