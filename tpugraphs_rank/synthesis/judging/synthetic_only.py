"""Trains predictors of labels on synthetic graphs only, and tests them on real graphs.

This is the protocol of LayerDAG's authors (arXiv 2411.02322, section 5.2), with two controls. Both
training and validation graphs are synthetic: with real validation graphs, early stopping alone
makes even shuffled labels correlate. Imports TensorFlow.
"""

from collections.abc import Mapping, Sequence
import logging
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy import sparse

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import twins
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import measures
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib
from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib

_logger = logging.getLogger(__name__)

# The same ratio as for the real graphs: 20 % validation to 60 % training.
VALID_SHARE = 0.25
_MEASURES = {"pearson": metrics.pearson, "spearman": metrics.spearman,
             "mae": metrics.mean_absolute_error}


class Predictor(Protocol):
  """Predicts the label of graphs.

  Attributes:
    details: what the entries of an `Agreement` say about it, by key; can be written as JSON.
  """

  @property
  def details(self) -> Mapping[str, Any]:
    ...

  def predict(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G,) float64 predicted labels."""


class Learner(Protocol):
  """Trains a predictor, such as `surrogate.train` and `forest.train`."""

  def __call__(self, training: dags_lib.Dags, valid: dags_lib.Dags, seed: int, label: str, /
               ) -> Predictor:
    ...


class Agreement(NamedTuple):
  """Agreement with the labels of the real test graphs, one entry per predictor.

  Attributes:
    real: predictors trained and stopped on real graphs.
    synthetic: predictors trained and stopped on synthetic graphs.
    shuffled: the same with the labels of the synthetic graphs in random order.
    requested: correlation of the labels that synthetic graphs were generated for with the labels
      that a predictor of real graphs gives them (`pearson` and `spearman`).
  """

  real: list[dict[str, Any]]
  synthetic: list[dict[str, Any]]
  shuffled: list[dict[str, Any]]
  requested: list[dict[str, Any]]


def evaluate(real: Mapping[str, dags_lib.Dags], synthetic: Sequence[dags_lib.Dags],
             seeds: Sequence[int], label: str | None = None,
             learn: Learner = surrogate_lib.train) -> Agreement:
  """Trains predictors with each seed, and tests them on real graphs.

  Args:
    real: "train", "valid" and "test".
    synthetic: samples of synthetic graphs; each gets its own predictors, with a validation split
      from `split`. Without samples, only predictors of real graphs are trained.
    seeds: seeds of the predictors.
    label: name of the label; None: the first label of the real graphs.
    learn: trains a predictor on training graphs, validation graphs, a seed and a label. Surrogates
      stop early by the validation graphs; forests do not use them. So both learn from the same
      graphs.

  Raises:
    DataError: the label does not exist, or there are too few graphs.
  """
  if not real["train"].y_names:
    raise errors.DataError("the real graphs have no labels; expected some to test surrogates on")
  label = label or real["train"].y_names[0]
  result = Agreement([], [], [], [])
  for seed in seeds:
    predictor = learn(real["train"], real["valid"], seed, label)
    result.real.append(_test(predictor, real["test"], label, seed=seed))
    for sample, graphs in enumerate(synthetic):
      requested = graphs.label(label)
      predicted = predictor.predict(graphs)
      result.requested.append({"sample": sample, "seed": seed, **{
          name: measures.zero_if_nan(_MEASURES[name](requested, predicted))
          for name in ("pearson", "spearman")}})
      sides = split(graphs, real["train"], seed)
      order = np.random.default_rng([seed, 2]).permutation(len(graphs))
      for name, y in (("synthetic", requested), ("shuffled", requested[order])):
        labelled = graphs.with_labels(y, [label])
        entry = _test(
            learn(labelled.take(sides["train"]), labelled.take(sides["valid"]), seed, label),
            real["test"], label, sample=sample, seed=seed)
        getattr(result, name).append(entry)
        _logger.info("seed %d, sample %d, %s labels: Pearson %.3f on real test graphs", seed,
                     sample, name, entry["pearson"])
  return result


def split(graphs: dags_lib.Dags, training: dags_lib.Dags, seed: int) -> dict[str, np.ndarray]:
  """Splits synthetic graphs so that the sides are as different from each other as real splits are.

  A generator knows its training graphs, and a graph generated under the conditions of one of them
  often resembles it. A random split would therefore reward surrogates that memorize single training
  graphs, and stop them far too late. So all graphs that were generated under the conditions of one
  training graph, or of its structural twins, are on the same side. Validation graphs that also
  occur among the training graphs are dropped. Labels of real validation or test graphs are not
  used.

  Args:
    graphs: synthetic graphs, whose labels are the requested ones.
    training: the training graphs of their generator.
    seed: seed of the split; about `VALID_SHARE` of the graphs are for validation.

  Returns:
    For "train" and "valid" the sorted indices of the graphs.

  Raises:
    DataError: there are fewer distinct conditions than sides, or no validation graph remains.
  """
  names = [name for name in graphs.y_names
           if name in training.y_names or name == conditions_lib.SIZE]
  # A sample without conditions is split by structure, as its training graphs would be.
  requested = np.stack([graphs.label(name) for name in names], axis=1) if names else (
      np.zeros([len(graphs), 0]))
  rows, condition = np.unique(
      np.concatenate([conditions_lib.values(training, names), requested]), axis=0,
      return_inverse=True)
  condition = condition.reshape(-1)
  _, structure = np.unique(training.hashes(), return_inverse=True)
  of_training, count = condition[:len(training)], len(rows) + structure.max() + 1
  # Connect the conditions of one structure, and the structures of one condition.
  joined = sparse.coo_matrix(
      (np.ones(len(training)), (of_training, len(rows) + structure)), [count, count])
  _, group = sparse.csgraph.connected_components(joined, directed=False)
  key = graphs.hashes() if not names else group[condition[len(training):]]
  side = np.array(twins.divide([str(value) for value in key.tolist()], {"valid": VALID_SHARE},
                               seed))
  sides = {name: np.flatnonzero(side == name) for name in ("train", "valid")}
  known = np.isin(graphs.hashes()[sides["valid"]], graphs.hashes()[sides["train"]])
  if known.all():
    raise errors.DataError(
        f"all {len(known)} synthetic validation graphs also occur among the training graphs; "
        "sample more graphs, or more diverse ones (--temperature, --tries=1)")
  return {"train": sides["train"], "valid": sides["valid"][~known]}


def summary(entries: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
  """Mean, sample standard deviation and count of one measure over predictors; None for none."""
  values = [entry[measure] for entry in entries]
  if not values:
    return {"mean": None, "sd": None, "n": 0}
  return {"mean": float(np.mean(values)),
          "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, "n": len(values)}


def _test(predictor: Predictor, test: dags_lib.Dags, label: str, **about: int) -> dict[str, Any]:
  predicted = predictor.predict(test)
  return {**about,
          **{name: measures.zero_if_nan(measure(test.label(label), predicted))
             for name, measure in _MEASURES.items()},
          **predictor.details}
