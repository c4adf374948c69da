"""What the noise between repeats of one configuration leaves for any ranker to find."""

import dataclasses
import math
from typing import Any, Dict, Optional

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.metrics import inputs

SIMULATIONS = 200


@dataclasses.dataclass(frozen=True)
class NoiseCeiling:
  """The noise of one graph's measurements, and the best that a ranker can do in spite of it.

  Attributes:
    runs: measurements, repeats included.
    configurations: distinct configurations.
    repeated: those that were measured more than once.
    runtime_span: max / min - 1 over all measurements.
    repeat_sd_relative: standard deviation of a measurement around its configuration's mean, as a
      fraction of the runtime; None without repeats.
    between_sd_relative: standard deviation of the true runtimes of distinct configurations, noise
      taken off; None without repeats.
    kendall_tau, opa: mean over simulations of what the true order reaches; None without repeats.
    kendall_tau_sd: standard deviation of tau over the simulations; None without repeats.
  """

  runs: int
  configurations: int
  repeated: int
  runtime_span: float
  repeat_sd_relative: Optional[float] = None
  between_sd_relative: Optional[float] = None
  kendall_tau: Optional[float] = None
  kendall_tau_sd: Optional[float] = None
  opa: Optional[float] = None

  def as_dict(self) -> Dict[str, Any]:
    """As JSON holds it."""
    return dataclasses.asdict(self)


def noise_ceiling(
    runtimes: ArrayLike,
    keys: ArrayLike,
    evaluated: Optional[ArrayLike] = None,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> NoiseCeiling:
  """Estimates the best tau and OPA that any ranker can expect, given how far repeats scatter.

  With l_ij the log runtime of repeat j of configuration i (n_i repeats, k configurations):

    1. Noise: s_w^2 = sum_ij (l_ij - l_i.)^2 / sum_i (n_i - 1), pooled over the repeated
       configurations, taken to be the same for all.
    2. Truth: s_b^2 = max(0, var(l_i.) - s_w^2 mean(1 / n_i)), since the means themselves are noisy.
       The true logs are taken to be the means, drawn towards their own mean until their variance
       is s_b^2.
    3. Simulation: each of the evaluated measurements is its configuration's true log plus the
       residual of a random repeat (l_ij - l_i., scaled by sqrt(n_i / (n_i - 1)), which makes up for
       the mean having been fitted). The ranker that knows the truth scores each measurement by its
       configuration's true runtime; its tau and OPA, averaged over the simulations, are the
       ceiling. Equal scores (repeats) count as everywhere: not in tau, as wrong in OPA.

  Where s_b is 0 nothing is to be found, and the ceiling of tau is 0.

  Args:
    runtimes: (c,) positive, any unit: all measurements of the graph.
    keys: (c,) equal where the configurations are equal (`graph.config_keys()`).
    evaluated: (c',) indices of the measurements that are judged; None: all.
    simulations: how many simulated measurements of the whole list.
    seed: of the simulation.

  Raises:
    DataError: a runtime is not positive, or the shapes differ.

  Source: one-way random-effects analysis of variance, for instance S. Searle, G. Casella,
  C. McCulloch, "Variance Components" (1992), chapter 3; the simulation is this project's.
  """
  measured = inputs.check_runtimes(runtimes)
  groups = np.asarray(keys)
  if groups.shape != measured.shape:
    raise errors.DataError(f"keys have shape {groups.shape}; expected {measured.shape}")
  logs = np.log(measured)
  _, inverse = np.unique(groups, return_inverse=True)
  inverse = inverse.reshape(-1)
  sizes = np.bincount(inverse)
  basis = NoiseCeiling(
      runs=measured.size, configurations=sizes.size, repeated=int((sizes > 1).sum()),
      runtime_span=float(measured.max() / measured.min() - 1.0))
  if not basis.repeated:
    return basis
  means = np.bincount(inverse, logs) / sizes
  residuals = (logs - means[inverse])[sizes[inverse] > 1]
  within = float((residuals ** 2).sum() / (sizes - 1).sum())
  truth, between = means, 0.0
  if sizes.size > 1:
    observed = float(means.var(ddof=1))
    between = max(0.0, observed - within * float((1.0 / sizes).mean()))
    shrink = math.sqrt(between / observed) if observed > 0 else 0.0
    truth = means.mean() + shrink * (means - means.mean())
  repeats = sizes[inverse][sizes[inverse] > 1]
  noise = residuals * np.sqrt(repeats / (repeats - 1.0))
  rows = inverse if evaluated is None else inverse[np.asarray(evaluated, np.int64)]
  rng = np.random.default_rng(seed)
  taus, accuracies = [], []
  for _ in range(simulations):
    simulated = np.exp(truth[rows] + rng.choice(noise, rows.size))
    taus.append(metrics.kendall_tau(simulated, -truth[rows]))
    accuracies.append(metrics.opa(simulated, -truth[rows]))
  tau, accuracy = metrics.mean_over_graphs(taus), metrics.mean_over_graphs(accuracies)
  found = dataclasses.replace(
      basis, repeat_sd_relative=math.sqrt(within), between_sd_relative=math.sqrt(between))
  if not tau.graphs:  # One measurement is judged, or all are equal.
    return found
  return dataclasses.replace(
      found, kendall_tau=tau.mean, kendall_tau_sd=float(np.nanstd(taus)), opa=accuracy.mean)
