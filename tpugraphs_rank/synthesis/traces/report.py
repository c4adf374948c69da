"""Compares synthetic traces with real ones, as one JSON object and one Markdown page."""

from collections.abc import Mapping
import math
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import tables
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import comparison
from tpugraphs_rank.synthesis.traces import generation

_NAMES = {
    "types": "types of nodes", "type_pairs": "types of a node and its dependency",
    "depth": "depth", "width": "width", "operands": "dependencies", "users": "users",
    "nodes": "number of nodes",
    "duration": "durations, log", "critical_path": "critical path, log", "work": "total work, log"}
_KINDS = ("synthetic", "random_typed", "random")
_RESAMPLES = 40


def evaluate(training: dags_lib.Dags, held_out: dags_lib.Dags, synthetic: dags_lib.Dags,
             seed: int = 0) -> dict[str, Any]:
  """Compares synthetic with held-out graphs, next to training graphs and random controls.

  Args:
    training: real sub-graphs that the generator learned.
    held_out: real sub-graphs that it never saw.
    synthetic: generated graphs.
    seed: seed of the controls and of the interval of the membership test.

  Returns:
    A value that can be written as JSON. `distances` holds the distance of each sample to the
    held-out graphs: `real` (training graphs: the distance between two real halves), `synthetic`,
    `random_typed` (the synthetic dependencies with random types) and `random` (random dependencies
    and types). `ratios` divides the others by `real`. Their key `degree` is about the larger of the
    distances of dependencies (`operands`) and users. `joined` is the number of samples that one
    synthetic graph joins. `resampled` holds the 5th and 95th percentiles of the same ratio for
    random draws of as many training graphs as synthetic ones: a perfect generator would be in that
    range. `revealed`: see `comparison.revealed`.

  Raises:
    DataError: the graphs have different attributes, or a sample is empty.
  """
  named = {"training": training, "held_out": held_out, "synthetic": synthetic}
  for name, graphs in named.items():
    if not len(graphs):
      raise errors.DataError(
          f"the {name.replace('_', '-')} part has no graphs; expected at least one; pass a file "
          "with graphs")
  values = bucket_values(held_out)
  together = joined(synthetic)
  named = dict(zip(named, dags_lib.in_common_vocabularies(
      [bare(graphs) for graphs in named.values()])))
  training, held_out, synthetic = named.values()
  samples = {"real": training, "synthetic": synthetic,
             "random_typed": comparison.random_typed(synthetic, training, seed),
             "random": comparison.random_graphs(synthetic, training, seed)}
  timed = None if values is None else {
      name: generation.durations(graphs, values)
      for name, graphs in {**samples, "held_out": held_out}.items()}
  distances = {
      name: comparison.distances(
          graphs, held_out, (timed[name], timed["held_out"]) if timed else None)
      for name, graphs in samples.items()}
  ratios = {name: {key: comparison.ratio(value, distances["real"][key])
                   for key, value in distances[name].items()} for name in _KINDS}
  return finite({
      "graphs": {name: len(graphs) for name, graphs in named.items()}, "joined": together,
      "nodes": {name: float(graphs.sizes.mean()) for name, graphs in named.items()},
      "distances": distances, "ratios": ratios,
      "resampled": resampled(training, held_out, len(synthetic), seed),
      "headline": {name: ratios["synthetic"][name] for name in comparison.HEADLINE},
      "revealed": comparison.revealed(training, held_out, synthetic, seed)})


def resampled(training: dags_lib.Dags, held_out: dags_lib.Dags, count: int, seed: int
              ) -> dict[str, list[float]]:
  """For each quantity the range of distances of random training graphs, as ratios.

  Args:
    training: the training graphs.
    held_out: the held-out graphs.
    count: number of training graphs in each of the random draws, which are with replacement.
    seed: seed of the draws.

  Returns:
    The 5th and 95th percentiles of the distance of a draw to the held-out graphs, divided by that
    of all training graphs. Without the quantities that need durations.
  """
  rng = np.random.default_rng([seed, 37])
  floor = comparison.distances(training, held_out)
  drawn = [comparison.distances(
      training.take(np.sort(rng.integers(len(training), size=count))), held_out)
           for _ in range(_RESAMPLES)]
  return {name: [float(value) for value in np.quantile(
      [comparison.ratio(one[name], floor[name]) for one in drawn], [0.05, 0.95],
      method="nearest")]
          for name in floor}


def spread(result: Mapping[str, Any], name: str) -> str:
  """The range of a quantity in `resampled`, for a table."""
  values = result.get("resampled", {}).get(name)
  if not values or None in values:
    return "-"
  return f"{number(values[0])} to {number(values[1])}"


def joined(synthetic: dags_lib.Dags) -> int:
  """The number of samples that one synthetic graph joins, as its file states; 1 if it does not."""
  stored = synthetic.provenance.get("stitched")
  return stored if isinstance(stored, int) and stored > 1 else 1


def warning_of_joined(together: int) -> str:
  """The warning that joined graphs are compared with single pieces of real traces."""
  return (f"each synthetic graph joins {together} samples (--stitch), but the real graphs are "
          "single pieces; the distances of depth, number of nodes, critical path and total work "
          "are large because of this; compare graphs that are not joined")


def bucket_values(graphs: dags_lib.Dags) -> Mapping[str, int] | None:
  """Microseconds of each duration bucket; None if the graphs have no durations."""
  if "duration" not in graphs.x_names:
    return None
  stored = graphs.provenance.get("buckets")
  stored = stored.get("values") if isinstance(stored, Mapping) else None
  found = stored.get("duration") if isinstance(stored, Mapping) else None
  return found if isinstance(found, Mapping) else {}


def bare(graphs: dags_lib.Dags) -> dags_lib.Dags:
  """The graphs without labels, which the samples do not share."""
  return graphs.with_labels(np.zeros([len(graphs), 0]), ())


def markdown(result: Mapping[str, Any]) -> str:
  """The page of a result of `evaluate`."""
  distances, ratios, revealed = (result[key] for key in ("distances", "ratios", "revealed"))
  rows = [[title, *(number(distances[kind][name]) for kind in ("real", *_KINDS)),
           number(ratios["synthetic"][name]), spread(result, name)]
          for name, title in _NAMES.items() if name in distances["real"]]
  near, real = revealed["nearest_training"], revealed["held_out_nearest_training"]
  auc = revealed["membership"]
  graphs, together = result["graphs"], result.get("joined", 1)
  return "\n\n".join([
      "# Synthetic and real traces",
      f"{graphs['training']} training, {graphs['held_out']} held-out and {graphs['synthetic']} "
      "synthetic graphs.",
      *([f"**Warning:** {warning_of_joined(together)}."] if together > 1 else []),
      "## Distances to held-out graphs",
      "Total variation for types, Wasserstein-1 for the rest. The column \"real\" is the distance "
      "of the training graphs: that between two real halves. The last column is the range of the "
      "ratio for random draws of as many training graphs as synthetic ones: no generator can be "
      "expected to be better. The type of a node is its type and operator together. In "
      "results.json, `degree` is about the larger of the distances of dependencies and users.",
      tables.markdown(["", "real", "synthetic", "random types", "random graphs",
                       "synthetic / real", "training graphs, drawn again"], rows),
      "## What the synthetic graphs reveal",
      "Distance to the nearest training graph, from 0 (the same neighborhoods) to 1 (none in "
      "common).",
      tables.markdown(["", "minimum", "median", "maximum"], [
          ["synthetic", *(number(near[key]) for key in ("minimum", "median", "maximum"))],
          ["held-out", *(number(real[key]) for key in ("minimum", "median", "maximum"))]]),
      f"Equal to a training graph: {revealed['equal_to_training']:.1%} of the synthetic graphs.",
      "Membership test, training or held-out by the distance to the nearest synthetic graph: AUC "
      f"{number(auc['auc'])}, 95 % interval {number(auc['low'])} to {number(auc['high'])} "
      "(0.5: chance).", ""])


def number(value: float | None) -> str:
  """A number for a table."""
  return "-" if value is None else f"{value:.3g}"


def finite(value: Any) -> Any:
  """The value with None in place of numbers that JSON lacks."""
  if isinstance(value, Mapping):
    return {key: finite(part) for key, part in value.items()}
  if isinstance(value, list):
    return [finite(part) for part in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
