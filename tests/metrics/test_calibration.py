"""Bins of leads: against counts by hand, and what must hold for any data."""

import json
import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import calibration


def _programs(count=30, candidates=40, noise=0.3, seed=0):
  """Programs whose speedup is exp(lead / 3) up to noise of their own and of each candidate."""
  rng = np.random.default_rng(seed)
  programs = []
  for _ in range(count):
    leads = rng.normal(0, 2, candidates)
    speedups = np.exp(leads / 3 + rng.normal(0, noise, candidates) + rng.normal(0, noise / 2))
    programs.append(calibration.Program(leads, speedups))
  return programs


def test_each_bin_has_the_figures_of_its_configurations():
  programs = _programs()
  fitted = calibration.fit(programs)
  leads, speedups = (np.concatenate(parts) for parts in zip(*programs))
  owners = np.repeat(np.arange(30), 40)
  ends = [one.least_lead for one in fitted.bins[1:]] + [math.inf]
  assert fitted.bins[0].least_lead == -math.inf and len(fitted.bins) > 5
  for one, end in zip(fitted.bins, ends):
    inside = (leads >= one.least_lead) & (leads < end)
    assert one.candidates == inside.sum()
    assert one.programs == len(set(owners[inside].tolist()))
    assert one.faster == (speedups[inside] > 1).mean()
    assert one.speedup == np.median(speedups[inside])
    assert one.speedup_half == tuple(np.quantile(speedups[inside], [0.25, 0.75]))
  assert sum(one.candidates for one in fitted.bins) == fitted.candidates == 1200
  assert fitted.programs == 30


def test_the_intervals_cover_new_programs():
  """Of many fits, about nine in ten intervals hold the share among very many programs."""
  many = _programs(3000, seed=99)
  covered = []
  for seed in range(12):
    fitted = calibration.fit(_programs(seed=seed))
    for one, outcome in zip(fitted.bins, calibration.outcomes(fitted, many)):
      covered.append(one.faster_interval[0] <= outcome.faster <= one.faster_interval[1])
  assert 0.85 < np.mean(covered) <= 1.0


def test_a_bin_in_which_all_agree_claims_no_certainty():
  programs = [calibration.Program(np.full(20, 1.0), np.full(20, 2.0)) for _ in range(10)]
  [only] = calibration.fit(programs).bins
  # Wilson's interval for 10 of 10 at 90 %: 10 / (10 + 1.645^2).
  assert only.faster == 1 and only.faster_interval[0] == pytest.approx(10 / (10 + 1.6449 ** 2))
  assert only.is_clear and only.speedup_interval == (2.0, 2.0)


def test_leads_of_chance_are_one_unclear_bin():
  rng = np.random.default_rng(3)
  programs = [calibration.Program(rng.normal(size=50), np.exp(rng.normal(size=50)))
              for _ in range(40)]
  fitted = calibration.fit(programs)
  assert not any(one.is_clear for one in fitted.bins)


def test_too_few_programs():
  assert calibration.fit(_programs(calibration.LEAST_PROGRAMS - 1)) is None
  assert calibration.fit(_programs(calibration.LEAST_PROGRAMS)) is not None
  empty = calibration.Program(np.zeros(0), np.zeros(0))
  assert calibration.fit([empty] * 9) is None


def test_a_large_program_does_not_outweigh_others():
  rng = np.random.default_rng(0)
  large = calibration.Program(rng.normal(size=50_000), np.ones(50_000))
  assert calibration.fit([*_programs(), large]).candidates == 1200 + 1000


def test_the_bin_of_a_lead():
  fitted = calibration.fit(_programs())
  second = fitted.bins[1].least_lead
  found = fitted.of(np.array([-1e9, second - 1e-9, second, 1e9]))
  assert found == [fitted.bins[0], fitted.bins[0], fitted.bins[1], fitted.bins[-1]]


@hypothesis.given(st.integers(5, 9), st.integers(1, 60), st.integers(1, 5), st.integers(0, 1000))
@hypothesis.settings(max_examples=40)
def test_bins_ascend(programs, candidates, distinct, seed):
  rng = np.random.default_rng(seed)
  data = [calibration.Program(rng.integers(0, distinct, candidates).astype(float),
                              np.exp(rng.normal(size=candidates))) for _ in range(programs)]
  bins = calibration.fit(data).bins
  for one, other in zip(bins, bins[1:]):
    assert one.least_lead < other.least_lead
    assert one.faster <= other.faster and one.speedup <= other.speedup
  for one in bins:
    assert one.programs >= calibration.LEAST_PROGRAMS
    assert one.faster_interval[0] <= one.faster <= one.faster_interval[1]
    assert one.speedup_half[0] <= one.speedup <= one.speedup_half[1]


def test_json():
  fitted = calibration.fit(_programs())
  assert calibration.Calibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
  stored = fitted.to_json()
  stored["bins"].reverse()
  for damaged in (stored, {}, {"bins": []}, {**fitted.to_json(), "bins": [{"least_lead": "x"}]}):
    with pytest.raises(errors.DataError, match="damaged"):
      calibration.Calibration.from_json(damaged)


def test_outcomes_on_other_programs():
  fitted = calibration.fit(_programs())
  first = fitted.bins[0]
  middle = first.speedup
  program = calibration.Program(np.array([-50.0, -60.0]), np.array([middle, 5.0]))
  outcomes = calibration.outcomes(fitted, [program])
  assert outcomes[0] == (2, 1, 0.5, (middle + 5) / 2, 0.5)
  assert outcomes[1] == (0, 0, None, None, None)
  # Both have the share of the first bin; one was faster.
  assert calibration.brier_score(fitted, [program]) == pytest.approx(
      (first.faster ** 2 + (1 - first.faster) ** 2) / 2)
