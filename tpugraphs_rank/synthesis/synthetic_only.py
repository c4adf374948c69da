"""What made graphs are worth: surrogates that saw nothing else, tested on real graphs.

The protocol of LayerDAG's authors (arXiv 2411.02322, section 5.2), with two controls. Training and
validation are synthetic, both: stopping on real validation graphs alone lets even shuffled labels
correlate. Imports TensorFlow.
"""

import logging
import math
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.synthesis import dags as dags_lib
from tpugraphs_rank.synthesis import surrogate as surrogate_lib

_logger = logging.getLogger(__name__)

VALID_SHARE = 0.2
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

  real: List[Dict[str, Any]]
  synthetic: List[Dict[str, Any]]
  shuffled: List[Dict[str, Any]]
  asked: List[Dict[str, Any]]


def worth(real: Mapping[str, dags_lib.Dags], synthetic: Sequence[dags_lib.Dags],
          seeds: Sequence[int], label: Optional[str] = None,
          options: surrogate_lib.Options = surrogate_lib.Options()) -> Worth:
  """Trains surrogates with each seed, and tests them on real graphs.

  Args:
    real: "train", "valid" and "test".
    synthetic: one sample, or several, each of which gets surrogates of its own; without one, only
      surrogates of real graphs are trained. 20 % of a sample, drawn with the seed, equal graphs
      together, are its validation graphs.
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
      parts = dags_lib.split_by_wl(graphs, {"valid": VALID_SHARE}, seed)
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


def summary(entries: Sequence[Mapping[str, Any]], measure: str) -> Dict[str, Any]:
  """Mean, standard deviation (n - 1) and number of one measure over surrogates; None for none."""
  values = [entry[measure] for entry in entries]
  if not values:
    return {"mean": None, "sd": None, "n": 0}
  return {"mean": float(np.mean(values)),
          "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, "n": len(values)}


def _judged(surrogate: surrogate_lib.Surrogate, test: dags_lib.Dags, label: str, **about: int
            ) -> Dict[str, Any]:
  predicted = surrogate.predict(test)
  return {**about,
          **{name: _defined(measure(test.label(label), predicted))
             for name, measure in _MEASURES.items()},
          "valid_pearson": surrogate.valid_pearson, "epoch": surrogate.epoch}


def _defined(value: float) -> float:
  """Constant predictions have no correlation: they agree as well as chance does."""
  return 0.0 if math.isnan(value) else value
