"""The best metrics that any ranker can reach, given the noise between repeated measurements."""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.metrics import inputs

SIMULATIONS = 200
# Maximum configurations of a graph that the estimate uses; it compares all pairs.
MAX_CONFIGURATIONS = 2_000
_EM_STEPS = 1000
_ATOMS = 500


@dataclasses.dataclass(frozen=True)
class NoiseCeiling:
  """The noise of a graph's measurements, and the best metrics that a ranker can reach.

  Attributes:
    runs: number of measurements, including repeats.
    configurations: number of distinct configurations.
    repeated: number of configurations that were measured more than once.
    runtime_span: max / min - 1 over all measurements.
    repeat_sd_relative: standard deviation of a measurement around its configuration's mean, as a
      fraction of the runtime; None without repeats.
    between_sd_relative: standard deviation of the true runtimes of distinct configurations, without
      the noise; None without repeats.
    repeat_kendall_tau: tau between the first and the second measurement of the repeated
      configurations, without a model. Both are noisy, so it is below the ceiling. None with fewer
      than two repeated configurations.
    kendall_tau, opa: the ceiling, see `noise_ceiling`; None without repeats.
    kendall_tau_sd: standard deviation of tau over the simulated lists; None without repeats.
  """

  runs: int
  configurations: int
  repeated: int
  runtime_span: float
  repeat_sd_relative: float | None = None
  between_sd_relative: float | None = None
  repeat_kendall_tau: float | None = None
  kendall_tau: float | None = None
  kendall_tau_sd: float | None = None
  opa: float | None = None

  def as_dict(self) -> dict[str, Any]:
    """The attributes as JSON values."""
    return dataclasses.asdict(self)


def noise_ceiling(
    runtimes: ArrayLike,
    keys: ArrayLike,
    evaluated: ArrayLike | None = None,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> NoiseCeiling:
  """Estimates the best expected tau and OPA of any ranker from the scatter of repeats.

  With l_ij the log runtime of repeat j of configuration i (n_i repeats):

    1. Noise: s^2 = sum_ij (l_ij - l_i.)^2 / sum_i (n_i - 1), pooled over the repeated
       configurations and assumed to be the same for all.
    2. Truth: the distribution of the true log runtimes m_i is the one under which the observed
       means l_i. ~ N(m_i, s^2 / n_i) are most likely; any shape is allowed (runtimes come in
       clusters), by expectation maximisation over weights of the observed means. Each m_i then has
       a posterior.
    3. Simulation, many times: draw every m_i from its posterior. Each evaluated measurement is its
       m_i plus the residual of a random repeat (scaled by sqrt(n_i / (n_i - 1)), because the mean
       was fitted). A ranker that knows the m_i ranks by them and guesses if they are equal. The
       means of its tau and OPA are the ceiling. Repeats of one configuration have one score and
       count as usual: not at all in tau, and as wrong in OPA.

  This is an estimate: with 25 repeated of 90 simulated configurations, its error was 0.05 to 0.09
  in tau in either direction, and it was 0.2 too high if all configurations were equally fast.

  Args:
    runtimes: (c,) positive, any unit: all measurements of the graph.
    keys: (c,) equal for equal configurations (`graph.config_keys()`).
    evaluated: (c',) indices of the evaluated measurements; None: all.
    simulations: number of simulated lists.
    seed: seed of the simulation, and of the draw of MAX_CONFIGURATIONS if there are more.

  Raises:
    DataError: a runtime is not positive, or the shapes differ.

  Source: J. Kiefer, J. Wolfowitz, Ann. Math. Statist. 27 (1956) for step 2. The simulation is
  this project's own; its test compares it with a known truth.
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
  many = sizes[inverse] > 1
  repeats = sizes[inverse][many]
  residuals = (logs - means[inverse])[many]
  within = float((residuals ** 2).sum() / (sizes - 1).sum())
  between = 0.0
  if sizes.size > 1:
    between = max(0.0, float(means.var(ddof=1)) - within * float((1.0 / sizes).mean()))
  basis = dataclasses.replace(
      basis, repeat_sd_relative=math.sqrt(within), between_sd_relative=math.sqrt(between),
      repeat_kendall_tau=_repeat_tau(measured, inverse, sizes))
  rng = np.random.default_rng(seed)
  rows = np.arange(measured.size) if evaluated is None else np.asarray(evaluated, np.int64)
  used = np.unique(inverse[rows])
  if used.size > MAX_CONFIGURATIONS:
    used = np.sort(rng.choice(used, MAX_CONFIGURATIONS, replace=False))
    rows = rows[np.isin(inverse[rows], used)]
  noise = residuals * np.sqrt(repeats / (repeats - 1.0))
  posterior = _Posterior(means, sizes, within, used, rng)
  places = np.searchsorted(used, inverse[rows])
  taus, accuracies = [], []
  for _ in range(simulations):
    truth = posterior.draw(rng)
    # Equal true runtimes are ranked at random; repeats of one configuration have one score.
    ranks = np.empty(truth.size)
    ranks[np.lexsort((rng.random(truth.size), truth))] = np.arange(truth.size)
    simulated = np.exp(truth[places] + rng.choice(noise, rows.size))
    taus.append(metrics.kendall_tau(simulated, -ranks[places]))
    accuracies.append(metrics.opa(simulated, -ranks[places]))
  tau, accuracy = metrics.mean_over_graphs(taus), metrics.mean_over_graphs(accuracies)
  if used.size < 2 or not tau.graphs:  # Nothing to rank.
    return basis
  return dataclasses.replace(
      basis, kendall_tau=tau.mean, kendall_tau_sd=float(np.nanstd(taus)), opa=accuracy.mean)


def _repeat_tau(measured: np.ndarray, inverse: np.ndarray, sizes: np.ndarray) -> float | None:
  """Tau between first and second measurements of the configurations that have both."""
  if (sizes > 1).sum() < 2:
    return None
  order = np.argsort(inverse, kind="stable")
  starts = (np.cumsum(sizes) - sizes)[sizes > 1]
  tau = metrics.kendall_tau(measured[order[starts]], -measured[order[starts + 1]])
  return None if math.isnan(tau) else tau


class _Posterior:
  """The distribution of the true log runtimes of configurations, given their noisy means."""

  def __init__(self, means: np.ndarray, sizes: np.ndarray, within: float, drawn_for: np.ndarray,
               rng: np.random.Generator):
    """Fits the distribution of the truth to (at most MAX_CONFIGURATIONS) means.

    Args:
      means: (k,) mean log runtimes.
      sizes: (k,) repeats.
      within: variance of one measurement.
      drawn_for: (j,) the configurations to draw runtimes of.
      rng: draws the configurations to fit if there are too many.
    """
    self._exact = means[drawn_for] if within == 0 else None
    if self._exact is not None:
      return
    fitted = np.arange(means.size)
    if fitted.size > MAX_CONFIGURATIONS:
      fitted = rng.choice(fitted, MAX_CONFIGURATIONS, replace=False)
    atoms = np.unique(means[fitted])
    if atoms.size > _ATOMS:
      atoms = np.quantile(atoms, np.linspace(0.0, 1.0, _ATOMS))

    def log_likelihood(rows: np.ndarray) -> np.ndarray:
      distance = means[rows][:, None] - atoms
      return -0.5 * distance ** 2 * (sizes[rows] / within)[:, None]

    likelihood = log_likelihood(fitted)
    likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    weights = np.full(atoms.size, 1.0 / atoms.size)
    for _ in range(_EM_STEPS):
      shares = likelihood * weights
      weights = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    log_weights = np.log(np.maximum(weights, 1e-300))
    self._atoms = atoms
    self._cumulative = np.cumsum(special.softmax(log_likelihood(drawn_for) + log_weights, axis=1),
                                 axis=1)

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """(j,) true log runtimes, one drawn for each configuration."""
    if self._exact is not None:
      return self._exact
    uniform = rng.random((len(self._cumulative), 1)) * self._cumulative[:, -1:]
    return self._atoms[(self._cumulative < uniform).sum(axis=1)]
