"""What made graphs are worth: surrogates that saw nothing else, tested on real graphs.

The protocol of LayerDAG's authors (arXiv 2411.02322, section 5.2), with two controls. Training and
validation are synthetic, both: stopping on real validation graphs alone lets even shuffled labels
correlate. Imports TensorFlow.
"""

from collections.abc import Mapping, Sequence
import logging
import math
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import twins
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib
from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib

_logger = logging.getLogger(__name__)

# As of the real graphs: 20 % of all beside 60 % for training.
VALID_SHARE = 0.25
_MEASURES = {"pearson": metrics.pearson, "spearman": metrics.spearman,
             "mae": metrics.mean_absolute_error}


class Worth(NamedTuple):
  """Agreement with the labels of the real test graphs, one entry a surrogate.

  Attributes:
    real: trained and stopped on real graphs.
    synthetic: trained and stopped on synthetic graphs.
    shuffled: the same with the labels of the synthetic graphs in random order.
    asked: correlation of the label that a synthetic graph was asked to have with the one that a
      surrogate of real graphs predicts for it (`pearson` and `spearman`).
  """

  real: list[dict[str, Any]]
  synthetic: list[dict[str, Any]]
  shuffled: list[dict[str, Any]]
  asked: list[dict[str, Any]]


def worth(real: Mapping[str, dags_lib.Dags], synthetic: Sequence[dags_lib.Dags],
          seeds: Sequence[int], label: str | None = None,
          options: surrogate_lib.Options = surrogate_lib.Options()) -> Worth:
  """Trains surrogates with each seed, and tests them on real graphs.

  Args:
    real: "train", "valid" and "test".
    synthetic: one sample, or several, each of which gets surrogates of its own; without one, only
      surrogates of real graphs are trained. Of a sample `divided` makes its validation graphs.
    seeds: of the surrogates.
    label: its name, the same in all; None: the first of the real graphs.
    options: of the surrogates.

  Raises:
    DataError: graphs lack the label, or there are too few of them.
  """
  if not real["train"].y_names:
    raise errors.DataError("the real graphs have no labels; expected some to test surrogates on")
  label = label or real["train"].y_names[0]
  found = Worth([], [], [], [])
  for seed in seeds:
    surrogate = surrogate_lib.train(real["train"], real["valid"], seed, label, options)
    found.real.append(_judged(surrogate, real["test"], label, seed=seed))
    for sample, graphs in enumerate(synthetic):
      asked = graphs.label(label)
      predicted = surrogate.predict(graphs)
      found.asked.append({"sample": sample, "seed": seed, **{
          name: _defined(_MEASURES[name](asked, predicted)) for name in ("pearson", "spearman")}})
      parts = divided(graphs, real["train"], seed)
      order = np.random.default_rng([seed, 2]).permutation(len(graphs))
      for name, y in (("synthetic", asked), ("shuffled", asked[order])):
        labelled = graphs.with_labels(y, [label])
        surrogate_of = surrogate_lib.train(
            labelled.take(parts["train"]), labelled.take(parts["valid"]), seed, label, options)
        entry = _judged(surrogate_of, real["test"], label, sample=sample, seed=seed)
        getattr(found, name).append(entry)
        _logger.info("seed %d, sample %d, %s labels: Pearson %.3f on real test graphs", seed,
                     sample, name, entry["pearson"])
  return found


def divided(graphs: dags_lib.Dags, training: dags_lib.Dags, seed: int) -> dict[str, np.ndarray]:
  """Training and validation parts of made graphs that are as strange to one another as real ones.

  A generator knows its training graphs, and what it makes under the conditions of one of them is
  often much like that one. A random part of a sample therefore rewards surrogates that remember
  single training graphs, and stops them far too late. So graphs that were asked for with the
  conditions of one training graph, or of its twins, stand on one side, and validation graphs that
  are also in training are left out. Labels of real validation or test graphs are not looked at.

  Args:
    graphs: made graphs, whose labels are what was asked for.
    training: the training graphs of their generator.
    seed: of the draw; about `VALID_SHARE` of the graphs are validation.

  Returns:
    For "train" and "valid" the ascending places of graphs.

  Raises:
    DataError: there are fewer different conditions than parts, or no graph is left to validate on.
  """
  names = [name for name in graphs.y_names
           if name in training.y_names or name == conditions_lib.SIZE]
  # A sample without conditions is divided by structure, as its training graphs would be.
  asked = np.stack([graphs.label(name) for name in names], axis=1) if names else (
      np.zeros([len(graphs), 0]))
  rows, place = np.unique(
      np.concatenate([conditions_lib.values(training, names), asked]), axis=0,
      return_inverse=True)
  place = place.reshape(-1)
  _, structure = np.unique(training.hashes(), return_inverse=True)
  of_training, count = place[:len(training)], len(rows) + structure.max() + 1
  # Conditions that one structure had, and structures of one condition, belong together.
  joined = sparse.coo_matrix(
      (np.ones(len(training)), (of_training, len(rows) + structure)), [count, count])
  _, group = sparse.csgraph.connected_components(joined, directed=False)
  own = graphs.hashes() if not names else group[place[len(training):]]
  split = np.array(twins.divide([str(value) for value in own.tolist()], {"valid": VALID_SHARE},
                                seed))
  parts = {name: np.flatnonzero(split == name) for name in ("train", "valid")}
  known = np.isin(graphs.hashes()[parts["valid"]], graphs.hashes()[parts["train"]])
  if known.all():
    raise errors.DataError(
        f"each of the {len(known)} made graphs that would stop training is trained on, too; sample "
        "more graphs, or more different ones (--temperature, --tries=1)")
  return {"train": parts["train"], "valid": parts["valid"][~known]}


def summary(entries: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
  """Mean, standard deviation (n - 1) and number of one measure over surrogates; None for none."""
  values = [entry[measure] for entry in entries]
  if not values:
    return {"mean": None, "sd": None, "n": 0}
  return {"mean": float(np.mean(values)),
          "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, "n": len(values)}


def _judged(surrogate: surrogate_lib.Surrogate, test: dags_lib.Dags, label: str, **about: int
            ) -> dict[str, Any]:
  predicted = surrogate.predict(test)
  return {**about,
          **{name: _defined(measure(test.label(label), predicted))
             for name, measure in _MEASURES.items()},
          "valid_pearson": surrogate.valid_pearson, "epoch": surrogate.epoch}


def _defined(value: float) -> float:
  """Constant predictions have no correlation: they agree as well as chance does."""
  return 0.0 if math.isnan(value) else value
