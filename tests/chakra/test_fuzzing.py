"""Damaged traces give typed errors or results; see `fuzzing`."""

import pathlib
import subprocess
import sys

import pytest

from tests.chakra import fuzzing

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_some_hundred_damaged_traces(tmp_path):
  outcomes = fuzzing.run(300, 0, tmp_path)
  assert sum(outcomes.values()) == 300
  # Both kinds of outcome occur, so that the damage is neither too small nor too large.
  assert outcomes["DataError"] > 50 and outcomes[""] > 20


@pytest.mark.slow
def test_ten_thousand_damaged_traces_in_limited_memory():
  result = subprocess.run(
      [sys.executable, "-m", "tests.chakra.fuzzing", "10000", "1"], cwd=ROOT, timeout=600,
      capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
