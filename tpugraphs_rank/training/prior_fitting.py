"""Fits a run's analytic prior: the weights of its cost, its trees, and the gate.

The gate needs to know how good learned scores are for programs that training did not see. Of known
families, these are the validation programs, which the run itself scores. For new groups, training
the network again for each of them would take too long, so boosted trees stand in for it, and are
fitted without one group of training programs after the other. This takes most of the time of a fit
and depends on the data alone, so its outcome is kept in the user's cache.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import itertools
import logging
import pathlib
from typing import Any, NamedTuple

import numpy as np
import sklearn

from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank.costs import novelty as novelty_lib
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import fit_cache
from tpugraphs_rank.evaluation import score_deviations
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.evaluation import tree_features
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import prior_trees
from tpugraphs_rank.training import tile_prior

_logger = logging.getLogger(__name__)

# Fewer programs or groups say nothing about new ones.
LEAST_PROGRAMS = 24
LEAST_GROUPS = 3
_MOST_PROGRAMS = 400  # More are thinned evenly: the gate has three parameters.
_MOST_FOLDS = 8  # Groups beyond this number share a fold.
_MOST_ROWS = 20_000
_LEARNER = trees.Settings(iterations=60, learning_rate=0.1)
# Of the trees in the prior, next to the cost. Groups that were held out decided.
TREES_SHARE = 0.8
# Weights of the prior at which held-out programs are compared; those between are interpolated.
_WEIGHTS = np.linspace(0.0, 1.0, 11)
_NOVELTIES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
# How much mean tau the choice of a gate gives up for more use of the prior.
_LOSS_OF_NEW, _LOSS_OF_KNOWN = 0.005, 0.0005
_TOPS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
_NAME = "analytic_prior"  # Of the folder in the cache.
# To be changed when the outcome of a fit changes for the same inputs.
_VERSION = 4


class HeldOut(NamedTuple):
  """What is known of a program that the learner did not see.

  Attributes:
    novelty: of the program, compared with those that the learner saw.
    taus: (11,) Kendall's tau by the weight of the cost, from 0 to 1.
  """

  novelty: float
  taus: np.ndarray


def reason_without(collection: registry.Collection, programs: Sequence[splits.ProgramView]
                   ) -> str:
  """Why no prior can be fitted to these training programs; "" if one can."""
  if collection.kind != "tile":
    return "the collection holds layouts"
  if collection.facts.register_tile != (1, 1):
    return f"the tiles of {collection.target} count registers, not elements"
  if len(programs) < LEAST_PROGRAMS:
    return f"{len(programs)} training programs are too few; {LEAST_PROGRAMS} are needed"
  groups = set(_groups(collection, programs))
  if len(groups) < LEAST_GROUPS:
    return f"{len(groups)} groups of kernels are too few; {LEAST_GROUPS} are needed"
  return ""


def _groups(collection: registry.Collection, programs: Sequence[splits.ProgramView]) -> list[str]:
  """The group of each program; its family if there are too few groups."""
  names = [program.graph.name for program in programs]
  groups = [collection.group(name) for name in names]
  return (groups if len(set(groups)) >= LEAST_GROUPS
          else [collection.family(name) for name in names])


def fit(collection: registry.Collection, programs: Sequence[splits.ProgramView],
        score: Callable[[Sequence[splits.ProgramView]], Sequence[np.ndarray]],
        valid: Sequence[splits.ProgramView] = (), seed: int = 0, costs: bool = False
        ) -> tile_prior.Prior:
  """Fits a prior.

  Args:
    collection: the programs' collection; `reason_without` must be "".
    programs: the training programs, with runtimes.
    score: the run's own scores of programs.
    valid: programs with runtimes that the run was not fitted to.
    seed: of the folds and the learner.
    costs: whether the run's features include the terms of the cost, so that the learner's do.
  """
  facts = collection.facts
  chosen = list(programs)
  if len(chosen) > _MOST_PROGRAMS:
    chosen = [chosen[place] for place in np.linspace(
        0, len(chosen) - 1, _MOST_PROGRAMS).astype(int)]
  chosen = trees.thin(chosen, _MOST_ROWS, np.random.default_rng([seed, 4]))
  kernels = [Kernel(program, facts) for program in chosen]
  table = trees.training_table(
      chosen, seed, _MOST_ROWS,
      tree_features.VERSION if costs else tree_features.WITHOUT_TILE_COSTS)
  new = _held_out(kernels, facts, table, _groups(collection, chosen), seed)
  prior = dataclasses.replace(
      _fit_ungated(kernels, facts, _cached_trees(kernels, seed)),
      novelty=novelty_lib.Novelty(novelty_lib.profile(one.graph) for one in programs),
      learned_deviation=score_deviations.mean(score(chosen)))
  known = _of_validation(prior, valid, score(valid) if valid else [])
  gate = choose_gate(new, known)
  figures = _figures(gate, new, known)
  taus = [figures[name][which] for name in ("held_out_groups", "validation")
          for which in ("learned", "analytic", "gated")]
  _logger.info("analytic prior: weight %.1f from novelty %.2f on, none up to %.2f; held-out "
               "groups: tau %s learned, %s analytic, %s gated; validation: %s, %s, %s",
               gate.top, gate.full, gate.start,
               *("undefined" if tau is None else f"{tau:.3f}" for tau in taus))
  return dataclasses.replace(prior, gate=gate, figures=figures)


def fit_ungated(kernels: Sequence["Kernel"], facts: targets.TargetFacts, seed: int,
                fits: int = prior_trees.FITS) -> tile_prior.Prior:
  """Fits the cost, the trees and the novelty of a prior that is used nowhere.

  Args:
    kernels: the training programs.
    facts: of their target.
    seed: of the trees.
    fits: how many fits of the trees to add up.
  """
  return _fit_ungated(kernels, facts, _fit_trees(kernels, seed, fits))


def _fit_ungated(kernels: Sequence["Kernel"], facts: targets.TargetFacts,
                 own: tile_prior.FittedTrees) -> tile_prior.Prior:
  weights = tile_cost.fit((kernel.terms, kernel.runtimes) for kernel in kernels)
  return tile_prior.Prior(
      weights, tile_prior.Gate(1.0, 1.0, 0.0),
      novelty_lib.Novelty(kernel.profile for kernel in kernels), 1.0,
      score_deviations.mean([tile_cost.log_of_terms(kernel.terms, weights) for kernel in kernels]),
      facts, trees=own)


def _of_validation(prior: tile_prior.Prior, programs: Sequence[splits.ProgramView],
                   scores: Sequence[np.ndarray]) -> list[HeldOut]:
  """Validation programs, as seen by the run and its prior."""
  return _with_tau(
      HeldOut(prior.novelty.of(program.graph), _taus(
          program.runtimes[program.indices], learned / prior.learned_deviation,
          prior.cost(program.graph)[program.indices]))
      for program, learned in zip(programs, scores) if isinstance(program.graph, graphs.TileGraph))


def _taus(runtimes: np.ndarray, learned: np.ndarray, cost: np.ndarray) -> np.ndarray:
  """(11,) Kendall's tau by the weight of the cost, from scores in one unit."""
  return np.array([metrics.kendall_tau(runtimes, (1 - weight) * learned + weight * cost)
                   for weight in _WEIGHTS])


def _with_tau(held: Iterable[HeldOut]) -> list[HeldOut]:
  """Those that have a tau; programs with nothing to rank have none."""
  return [one for one in held if np.isfinite(one.taus).all()]


def _cached_trees(kernels: Sequence["Kernel"], seed: int) -> tile_prior.FittedTrees:
  """The result of `_fit_trees` for all kernels; cached."""
  return fit_cache.reuse(
      _NAME, lambda: (
          _VERSION, sklearn.__version__, "trees", prior_trees.SETTINGS, prior_trees.FITS,
          TREES_SHARE,
          *(array for kernel in kernels for array in (kernel.relative, kernel.ranked)), seed),
      ".npz", lambda: _fit_trees(kernels, seed),
      lambda path: _with_deviation(tree_arrays.read(path), kernels),
      lambda path, fitted: tree_arrays.write(path, fitted.arrays))


def _with_deviation(arrays: tree_arrays.TreeArrays, kernels: Sequence["Kernel"]
                    ) -> tile_prior.FittedTrees:
  return tile_prior.FittedTrees(arrays, TREES_SHARE, score_deviations.mean(
      [arrays.scores(kernel.relative) for kernel in kernels]))


def _fit_trees(kernels: Sequence["Kernel"], seed: int, fits: int = prior_trees.FITS
               ) -> tile_prior.FittedTrees:
  """The trees of the prior, from the kernels of its fit."""
  arrays = prior_trees.fit([kernel.relative for kernel in kernels],
                           [kernel.ranked for kernel in kernels], seed, fits)
  return _with_deviation(arrays, kernels)


class Kernel:
  """What a prior is fitted to: a program's configurations, described once.

  Attributes:
    program: the program.
    runtimes: (c',) float64, as measured.
    ranked: (c',) the runtimes that rankers are fitted to.
    terms: (c', 13) the terms of the analytic cost.
    relative: (c', f) the features of the prior's trees.
    profile: the program, as novelty sees it.
  """

  def __init__(self, program: splits.ProgramView, facts: targets.TargetFacts):
    assert isinstance(program.graph, graphs.TileGraph)
    self.program = program
    rows = program.indices
    terms = tile_cost.terms(program.graph, facts)
    self.terms = terms[rows]
    self.runtimes = program.graph.config_runtime[rows].astype(np.float64)
    self.ranked = program.runtimes[rows]
    self.profile = novelty_lib.profile(program.graph)
    self.relative = prior_trees.rows_of(program.graph, facts, terms)[rows]


def _folds(groups: Sequence[str]) -> list[np.ndarray]:
  """Programs by group; if there are many groups, several share a fold."""
  names = sorted(set(groups))
  fold_of = {name: place % _MOST_FOLDS for place, name in enumerate(names)}
  folds = np.array([fold_of[name] for name in groups])
  return [np.flatnonzero(folds == fold) for fold in range(min(len(names), _MOST_FOLDS))]


def _held_out(kernels: Sequence[Kernel], facts: targets.TargetFacts, table: trees.Table,
              groups: Sequence[str], seed: int) -> list[HeldOut]:
  """The training programs, held out by group; cached."""
  return fit_cache.reuse(
      _NAME, lambda: (
          _VERSION, sklearn.__version__, _LEARNER, table.features, table.targets, table.weights,
          table.sizes, *(array for kernel in kernels for array in (
              kernel.terms, kernel.runtimes, kernel.ranked, kernel.relative)),
          prior_trees.SETTINGS, TREES_SHARE,
          [sorted(kernel.profile.items()) for kernel in kernels], list(groups), seed),
      ".json", lambda: _by_fold(kernels, facts, table, _folds(groups), seed), _read_held_out,
      _write_held_out)


def _read_held_out(path: pathlib.Path) -> list[HeldOut]:
  """The held-out programs in a file of the cache; raises ValueError if it is damaged."""
  held = [HeldOut(row[0], np.array(row[1:], np.float64))
          for row in files.read_json(path)["held_out"]]
  rows = np.array([[one.novelty, *one.taus] for one in held], np.float64)
  if rows.shape[1:] != (1 + len(_WEIGHTS),) or not np.isfinite(rows).all():
    raise ValueError(f"an array of shape {rows.shape}")
  return held


def _write_held_out(path: pathlib.Path, held: list[HeldOut]) -> None:
  files.write_json(path, {"held_out": [[one.novelty, *one.taus.tolist()] for one in held]})


def _by_fold(kernels: Sequence[Kernel], facts: targets.TargetFacts, table: trees.Table,
             folds: Sequence[np.ndarray], seed: int) -> list[HeldOut]:
  """Every program, as seen by a learner and a cost that were fitted without its fold.

  Args:
    kernels: the programs.
    facts: of their target.
    table: the rows of the learner, of all programs in their order.
    folds: places of programs that are held out together.
    seed: of the learner.
  """
  owner = np.repeat(np.arange(len(kernels)), table.sizes)

  def outcomes(fold: np.ndarray) -> list[HeldOut]:
    rest = [kernels[place] for place in np.setdiff1d(np.arange(len(kernels)), fold)]
    out = [kernels[place] for place in fold]
    train = ~np.isin(owner, fold)
    fitted = trees.fit_table(trees.Table(
        table.features[train], table.targets[train], table.weights[train], table.columns,
        np.delete(table.sizes, fold)), _LEARNER, seed)
    scores = fitted.predict(table.features)
    learned = [scores[owner == place] for place in range(len(kernels))]
    deviation = score_deviations.mean([learned[place] for place in np.unique(owner[train])])
    prior = fit_ungated(rest, facts, seed, fits=1)  # The gate needs no more.
    return [HeldOut(prior.novelty.of_profile(kernel.profile), _taus(
        kernel.ranked, learned[place] / deviation,
        prior.cost_of_rows(kernel.terms, kernel.relative))) for kernel, place in zip(out, fold)]

  by_fold = trees.run_all(outcomes, [fold for fold in folds if 0 < len(fold) < len(kernels)],
                          "analytic prior: held-out programs", "fold")
  return _with_tau(one for fold in by_fold for one in fold)


def choose_gate(new: Sequence[HeldOut], known: Sequence[HeldOut]) -> tile_prior.Gate:
  """The gate for predictions like those of held-out programs.

  The best mean tau over both lists, which count equally, is found first. Of the gates that are
  almost as good on each list, the one that uses the prior most on new programs is chosen: the prior
  fails less where a group is unlike all that were held out. Of equal ones, it is the simplest.

  Args:
    new: programs of held-out groups.
    known: validation programs.
  """
  gates = [tile_prior.Gate(start, full, top) for start, full, top in itertools.product(
      _NOVELTIES, _NOVELTIES, _TOPS) if start <= full]
  tau = lambda held: np.array([mean_tau(gate, held) if held else 0.0 for gate in gates])
  of_new, of_known = tau(new), tau(known)
  best = int(np.argmax(of_new + of_known))
  good = np.flatnonzero((of_new >= of_new[best] - _LOSS_OF_NEW)
                        & (of_known >= of_known[best] - _LOSS_OF_KNOWN))
  use = [float(np.mean([gate.weight(one.novelty) for one in new] or [0.0])) for gate in gates]
  return gates[max(good, key=lambda place: (
      round(use[place], 9), -gates[place].top, gates[place].start, gates[place].full))]


def mean_tau(gate: tile_prior.Gate, held: Sequence[HeldOut]) -> float:
  """The mean tau of held-out programs with a gate."""
  return float(np.mean([np.interp(gate.weight(one.novelty), _WEIGHTS, one.taus) for one in held]))


def _figures(gate: tile_prior.Gate, new: Sequence[HeldOut], known: Sequence[HeldOut]
             ) -> dict[str, Any]:
  figures: dict[str, Any] = {}
  for name, held in (("held_out_groups", new), ("validation", known)):
    none, full = tile_prior.Gate(1.0, 1.0, 0.0), tile_prior.Gate(-1.0, -1.0, 1.0)
    figures[name] = {
        "programs": len(held), **{which: mean_tau(one, held) if held else None for which, one in
                                  (("learned", none), ("analytic", full), ("gated", gate))}}
  return figures
