"""The check of a calibration on other programs, and its table."""

import numpy as np
import pytest

from experiments import calibration_check
from tpugraphs_rank.metrics import calibration


def _programs(seed, count=20):
  rng = np.random.default_rng(seed)
  programs = []
  for _ in range(count):
    leads = rng.normal(0, 2, 40)
    programs.append(calibration.Program(leads, np.exp(leads / 3 + rng.normal(0, 0.3, 40))))
  return programs


def test_a_check_on_programs_of_the_same_kind():
  fitted = calibration.fit(_programs(0))
  figures = calibration_check.check(fitted, _programs(1))
  assert figures["programs"] == 20 and figures["candidates"] == 800
  assert figures["mean_error_of_shares"] < 0.1 and figures["brier_score"] < 0.15
  assert figures["brier_score"] == calibration.brier_score(fitted, _programs(1))
  # Against programs in which a lead means the opposite.
  reverse = [calibration.Program(-leads, speedups) for leads, speedups in _programs(1)]
  assert calibration_check.check(fitted, reverse)["mean_error_of_shares"] > 0.5


def test_the_table():
  fitted = calibration.fit(_programs(0))
  figures = calibration_check.check(fitted, _programs(1))
  table = calibration_check.table({"calibrations": {"m": {
      "calibration": fitted.to_json(), "test": {calibration_check.SEEN: figures}}}})
  lines = table.splitlines()
  assert len(lines) == 2 + len(fitted.bins)
  first, outcome = fitted.bins[0], figures["bins"][0]
  assert lines[2].startswith("| `m` | lowest | ")
  assert f"{100 * first.faster:.0f} (" in lines[2]
  assert lines[2].endswith(
      f"| {100 * outcome['faster']:.0f} of {outcome['candidates']}, "
      f"{outcome['speedup']:.2f}x | - |")


def test_a_bin_without_configurations():
  fitted = calibration.fit(_programs(0))
  one = [calibration.Program(np.array([-50.0]), np.array([0.5]))]
  figures = calibration_check.check(fitted, one)
  assert figures["bins"][-1]["faster"] is None
  assert figures["mean_error_of_shares"] == pytest.approx(fitted.bins[0].faster)
