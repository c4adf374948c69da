"""A Gaussian process on few measurements, with fixed kinds of kernels and fitted weights.

The mean is a prior (a ranker's score, scaled), and the covariance is the sum of a linear kernel, as
in Bayesian ridge regression, a squared exponential kernel, and noise. The weights maximise the
marginal likelihood, times a weak prior, over a small grid: with tens of points, gradient search
gains nothing and can fail. See C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for
Machine Learning (2006), chapters 2 and 5.
"""

import dataclasses
import itertools

import numpy as np

_JITTER = 1e-9


@dataclasses.dataclass(frozen=True)
class Grid:
  """The weights that are tried, in the units of the targets' standard deviations.

  Attributes:
    slopes: of the prior's score.
    slope: the one that is expected beforehand.
    linear, smooth, noise: standard deviations of the parts of the covariance.
    length: distance over which the smooth part changes, in typical distances of points.
    scale: the standard deviation of the targets that is expected beforehand.
  """

  slopes: tuple[float, ...] = (0.0, 0.15, 0.3)
  slope: float = 0.15
  linear: tuple[float, ...] = (0.0, 0.5, 1.0)
  smooth: tuple[float, ...] = (0.3, 1.0)
  noise: tuple[float, ...] = (0.1, 0.3)
  length: float = 1.0
  scale: float = 0.05


class GaussianProcess:
  """Predicts a number for points from a few known ones.

  Attributes:
    chosen: the weights that the last fit chose: slope, linear, smooth, noise.
  """

  def __init__(self, grid: Grid | None = None) -> None:
    """Starts without points.

    Args:
      grid: the weights to try.
    """
    self._grid = grid or Grid()
    self.chosen = (0.0, 0.0, 0.0, 0.0)

  def fit(self, points: np.ndarray, prior: np.ndarray, values: np.ndarray) -> "GaussianProcess":
    """Chooses the weights and stores the points.

    Args:
      points: (n, d) features, each of a scale of about 1.
      prior: (n,) the prior's scores, in units of `Grid.scale` above the mean: a higher score is
        expected to go with a higher value.
      values: (n,) the known values.
    """
    grid = self._grid
    self._points, self._prior = points, prior
    # Few values say little about their scale.
    count = len(values)
    variance = (grid.scale ** 2 * 3 + np.var(values) * count) / (3 + count)
    self._scale = float(np.sqrt(variance))
    best = -np.inf
    linear_part, smooth_part = _linear(points, points), self._smooth(points, points)
    for linear, smooth, noise in itertools.product(grid.linear, grid.smooth, grid.noise):
      covariance = (linear ** 2 * linear_part + smooth ** 2 * smooth_part
                    + (noise ** 2 + _JITTER) * np.eye(count))
      lower = np.linalg.cholesky(covariance)
      determinant = 2 * np.log(np.diag(lower)).sum()
      ones = np.linalg.solve(lower, np.ones(count))
      # The mean has a wide prior of its own, 2 standard deviations.
      for slope in grid.slopes:
        rest = np.linalg.solve(lower, (values / self._scale) - slope * prior)
        weight = ones @ ones + 0.25
        offset = float(ones @ rest / weight)
        likelihood = -0.5 * (rest @ rest - offset ** 2 * weight + determinant + np.log(weight))
        likelihood -= 0.5 * (slope - grid.slope) ** 2
        if likelihood > best:
          best = likelihood
          self.chosen = (slope, linear, smooth, noise)
          self._lower, self._offset, self._ones, self._weight = lower, offset, ones, weight
          self._alpha = rest - offset * ones
    return self

  def predict(self, points: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the values without noise, (m,) each."""
    slope, linear, smooth, _ = self.chosen
    across = linear ** 2 * _linear(self._points, points) + smooth ** 2 * self._smooth(
        self._points, points)
    own = linear ** 2 * (points ** 2).mean(axis=1) + smooth ** 2
    solved = np.linalg.solve(self._lower, across)
    mean = slope * prior + self._offset + solved.T @ self._alpha
    # What is not known about the offset adds to the variance.
    share = 1 - self._ones @ solved
    variance = own - (solved ** 2).sum(axis=0) + share ** 2 / self._weight
    return self._scale * mean, self._scale * np.sqrt(np.maximum(variance, _JITTER))

  def _smooth(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a ** 2).sum(axis=1)[:, None] + (b ** 2).sum(axis=1) - 2 * a @ b.T
    width = max(a.shape[1], 1) * 2 * self._grid.length ** 2
    return np.exp(-np.maximum(squares, 0) / width)


def _linear(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return a @ b.T / max(a.shape[1], 1)
