"""The figures of the live study of tuning, from entries of programs."""

import math

import pytest

from experiments import tuning_live


def _entry(speedup: float, again: float, random: float, low: float = 1.1) -> dict:
  return {"measurements": 20, "default_ms": 0.5, "is_faster": low > 1,
          "confirmed": {"speedup": speedup, "interval": [low, speedup + 0.1]}, "again": again,
          "repeats": low <= again <= speedup + 0.1, "random": {"again": random}}


def test_gains_are_geometric_means_over_all_programs() -> None:
  entries = {
      "a.hlo.pb": _entry(1.2, 1.25, 1.5), "b.hlo.pb": _entry(1.2, 1.5, 0.9),
      "c.hlo.pb": _entry(1.02, 1.01, 1.2, low=0.99),  # Not shown to be faster: counts as 1.
      "d.hlo.pb": {"measurements": 5, "default_ms": 0.1, "is_faster": False, "confirmed": None,
                   "random": {"again": 1.0}},
      "e.hlo.pb": {"refused": "f: nothing to request"}}
  summary = tuning_live.summary(entries)
  assert (summary["tuned"], summary["refused"]) == (4, 1)
  assert (summary["measured_again"], summary["repeats"]) == (3, 2)
  assert summary["mean_gain"] == pytest.approx((1.25 * 1.5) ** 0.25)
  assert summary["random_gain"] == pytest.approx((1.5 * 1.2) ** 0.25)
  assert summary["share"] == pytest.approx(math.log(1.25 * 1.5) / math.log(1.5 * 1.2))
  table = tuning_live.table({"programs": entries})
  assert "| `a` | 0.50 | 20 | 1.200 (1.100 to 1.300) | 1.250 | 1.500 |" in table
  assert "the default is best" in table and "refused" in table


def test_a_study_without_programs_or_random_configurations_has_no_share() -> None:
  assert tuning_live.summary({})["mean_gain"] == 1.0
  entry = _entry(1.2, 1.25, 1.0)
  del entry["random"]
  assert "share" not in tuning_live.summary({"a": entry})
