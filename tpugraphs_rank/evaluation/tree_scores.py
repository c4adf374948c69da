"""Scores of boosted trees for a split, with a cache of tuned settings and of scores.

Tuning and fitting take minutes, and depend on the data only, so that the evaluation of another run
on the same data reuses both.
"""

from collections.abc import Callable, Sequence
import dataclasses
import logging
import pathlib
from typing import Any, NamedTuple

import numpy as np
import sklearn

from tpugraphs_rank import array_files
from tpugraphs_rank import files
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import fit_cache
from tpugraphs_rank.evaluation import lambdarank
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.evaluation import trees

_logger = logging.getLogger(__name__)

# The scores of a seed are the means of this many fits. Models are averages of several networks too.
_MEMBERS = 3
# Scores of more configurations are not kept: hashing their features would be slow.
_MAX_CACHED_ROWS = 200_000
# To be changed when the features or the targets of the trees change their meaning.
_VERSION = 1


class Method(NamedTuple):
  """A way to fit trees.

  Attributes:
    name: of the baseline.
    grid: the settings that are compared on validation.
    settings: their class.
    fit: fits to a table of `trees`, settings and a seed; see `trees.Trees` for the result.
    version: the library and its version.
    fit_arrays: the same as arrays, from the width of the features too; None: not for runs.
  """

  name: str
  grid: Sequence[Any]
  settings: Callable[..., Any]
  fit: Callable[[trees.Table, Any, int], Any]
  version: str
  fit_arrays: Callable[[trees.Table, Any, int, int], tree_arrays.TreeArrays] | None = None


def method(name: str) -> Method:
  """The method of a baseline, `baselines.BOOSTED_TREES` or `baselines.LAMBDARANK`.

  Raises:
    ConfigError: the library of the method is not installed.
  """
  if name == baselines.BOOSTED_TREES:
    return Method(name, trees.GRID, trees.Settings, trees.fit_table, sklearn.__version__,
                  _regressor_arrays)
  assert name == baselines.LAMBDARANK
  return Method(name, lambdarank.GRID, lambdarank.Settings, lambdarank.fit_table,
                lambdarank.version(), lambdarank.fit_arrays)


def _regressor_arrays(table: trees.Table, settings: trees.Settings, seed: int, width: int
                      ) -> tree_arrays.TreeArrays:
  """The trees of `trees.fit_table` as arrays."""
  return tree_arrays.from_regressor(trees.fit_table(table, settings, seed).regressor,
                                    table.columns.kept, width, table.columns.edges)


def scores(train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
           programs: Sequence[splits.ProgramView], seeds: Sequence[int],
           how: str | Method = baselines.BOOSTED_TREES) -> list[list[np.ndarray]]:
  """Scores of tuned trees.

  Args:
    train: the programs to fit.
    valid: the programs to choose hyperparameters on, with the first seed.
    programs: the programs to score.
    seeds: the seeds; each has _MEMBERS fits, whose scores are averaged.
    how: the baseline, see `method`, or another way to fit trees.

  Returns:
    For each seed, for each program (c',) float64, higher = predicted faster.

  Raises:
    DataError: a program to fit or to tune on has no runtimes.
    ConfigError: as for `method`.
  """
  how = method(how) if isinstance(how, str) else how
  name = how.name
  settings = tuned(how, train, valid, seeds[0])
  members = [_MEMBERS * seed + member for seed in seeds for member in range(_MEMBERS)]
  sizes = [len(program.indices) for program in programs]
  small = fit_cache.folder(name) is not None and sum(sizes) <= _MAX_CACHED_ROWS
  target = trees.features_of(programs) if small else None

  def member_scores(seed: int) -> list[np.ndarray]:
    table = trees.training_table(train, seed)
    fit = lambda: how.fit(table, settings, seed).score(programs)
    if target is None:
      return fit()
    return fit_cache.reuse(name, lambda: (
        _VERSION, how.version, "scores", *table[:3], table.columns.kept,
        *(table.columns.edges or ()), target, dataclasses.astuple(settings), seed), ".npz", fit,
                           lambda path: _read_scores(path, sizes), _write_scores)

  every = trees.run_all(member_scores, members, f"{name}: fits", "fit")
  return [[np.mean(values, axis=0) for values in zip(*every[start:start + _MEMBERS])]
          for start in range(0, len(every), _MEMBERS)]


def tuned(how: Method, train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
          seed: int) -> Any:
  """The settings that `trees.tune` chooses among those of a method, from the cache if it has them.

  Args:
    how: the method.
    train, valid, seed: see `trees.tune`.
  """
  data = trees.tuning_data(train, valid, seed)

  def read(path: pathlib.Path) -> Any:
    settings = how.settings(**files.read_json(path)["settings"])
    _logger.info("%s: reused tuned settings in %s", how.name, path)
    return settings

  return fit_cache.reuse(
      how.name, lambda: (_VERSION, how.version, "settings", *data.parts(),
                         [dataclasses.astuple(each) for each in how.grid]), ".json",
      lambda: trees.tune_on(data, how.grid, how.fit, how.name), read,
      lambda path, settings: files.write_json(path, {"settings": dataclasses.asdict(settings)}))


def _read_scores(path: pathlib.Path, sizes: Sequence[int]) -> list[np.ndarray]:
  """The scores in a file of the cache; raises ValueError if they do not fit the programs."""
  values = npz.read_arrays(path, ["scores"])["scores"]
  if values.dtype != np.float64 or values.shape != (sum(sizes),) or not np.isfinite(values).all():
    raise ValueError(f"scores of type {values.dtype} and shape {values.shape}")
  return np.split(values, np.cumsum(sizes)[:-1])


def _write_scores(path: pathlib.Path, values: Sequence[np.ndarray]) -> None:
  array_files.save(path, {"scores": np.concatenate(values)})
