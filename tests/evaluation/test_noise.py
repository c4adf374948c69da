"""The noise ceiling, compared with a known truth."""

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.evaluation import noise

NOISE = 1e-4


def _measured(truth, repeats, seed, sd=NOISE):
  keys = np.repeat(np.arange(len(truth)), repeats)
  logs = truth[keys] + np.random.default_rng(seed).normal(0, sd, len(keys))
  return 1e9 * np.exp(logs), keys


def _best_tau(truth, repeats, runs=40):
  """The mean tau of a ranker that knows the truth and guesses among equals."""
  taus = []
  for seed in range(runs):
    runtimes, keys = _measured(truth, repeats, 1000 + seed)
    order = np.lexsort((np.random.default_rng(seed).random(len(truth)), truth))
    taus.append(metrics.kendall_tau(runtimes, -np.argsort(order)[keys]))
  return np.mean(taus)


@pytest.mark.parametrize("name,truth", [
    ("clusters", np.random.default_rng(0).choice([0.0, 8e-3, 1.6e-2], 90, p=[0.6, 0.2, 0.2])),
    ("spread", np.random.default_rng(1).normal(0, 2 * NOISE, 90)),
    ("far apart", np.random.default_rng(2).normal(0, 0.1, 90)),
])
def test_the_ceiling_is_the_score_of_a_ranker_that_knows_the_truth(name, truth):
  repeats = np.where(np.arange(90) < 30, 2, 1)
  result = [noise.noise_ceiling(*_measured(truth, repeats, seed), simulations=20, seed=seed)
           for seed in range(4)]
  assert np.mean([one.kendall_tau for one in result]) == pytest.approx(
      _best_tau(truth, repeats), abs=0.1), name
  assert np.mean([one.repeat_sd_relative for one in result]) == pytest.approx(NOISE, rel=0.2)
  assert np.mean([one.between_sd_relative for one in result]) == pytest.approx(
      truth.std(), rel=0.3)
  assert all(one.kendall_tau_sd < 0.1 and 0.5 < one.opa <= 1.0 for one in result)
  assert result[0].runs == 120 and result[0].configurations == 90 and result[0].repeated == 30


def test_equal_configurations_leave_little_to_gain():
  truth = np.zeros(90)
  result = [noise.noise_ceiling(*_measured(truth, 2, seed), simulations=20).kendall_tau
           for seed in range(4)]
  assert np.mean(result) < 0.3


def test_exact_repeats_leave_nothing_to_noise():
  runtimes, keys = _measured(np.arange(5) * 0.1, 2, 0, sd=0.0)
  result = noise.noise_ceiling(runtimes, keys)
  assert result.kendall_tau == 1.0 and result.kendall_tau_sd == 0.0
  assert result.repeat_kendall_tau == 1.0
  assert result.repeat_sd_relative == pytest.approx(0.0, abs=1e-9)


def test_repeats_rank_each_other():
  #                  a    a    b    b    c    c    d
  runtimes = np.array([100, 130, 110, 120, 140, 150, 90])
  result = noise.noise_ceiling(runtimes, np.array([0, 0, 1, 1, 2, 2, 3]), simulations=3)
  assert result.repeat_kendall_tau == pytest.approx((2 - 1) / 3)
  assert result.runtime_span == pytest.approx(150 / 90 - 1)
  logs = np.log(runtimes)
  within = sum((logs[i] - logs[i + 1]) ** 2 / 2 for i in (0, 2, 4)) / 3
  assert result.repeat_sd_relative == pytest.approx(np.sqrt(within))


def test_without_repeats_there_is_no_estimate():
  result = noise.noise_ceiling([100, 150], [0, 1])
  assert result == noise.NoiseCeiling(2, 2, 0, 0.5)
  assert result.as_dict()["kendall_tau"] is None


def test_one_configuration_has_nothing_to_rank():
  result = noise.noise_ceiling([100, 150, 120], [7, 7, 7])
  assert result.kendall_tau is None and result.repeat_sd_relative > 0
  assert result.repeat_kendall_tau is None


def test_only_the_evaluated_measurements_are_simulated():
  truth = np.concatenate([np.zeros(20), np.arange(1, 21) * 0.1])
  runtimes, keys = _measured(truth, 2, 0)
  clear = noise.noise_ceiling(runtimes, keys, np.flatnonzero(keys >= 20), simulations=10)
  assert clear.kendall_tau == 1.0 and clear.runs == 80
  blurred = noise.noise_ceiling(runtimes, keys, np.flatnonzero(keys < 20), simulations=10)
  assert blurred.kendall_tau < 0.5


def test_many_configurations_are_thinned(monkeypatch):
  monkeypatch.setattr(noise, "MAX_CONFIGURATIONS", 20)
  monkeypatch.setattr(noise, "_ATOMS", 10)
  runtimes, keys = _measured(np.arange(100) * 0.1, 2, 0)
  result = noise.noise_ceiling(runtimes, keys, simulations=5)
  assert result.configurations == 100 and result.kendall_tau > 0.8


def test_bad_input_is_a_data_error():
  with pytest.raises(errors.DataError, match="not positive"):
    noise.noise_ceiling([0, 1], [0, 1])
  with pytest.raises(errors.DataError, match="keys have shape"):
    noise.noise_ceiling([1, 1], [0, 1, 2])
