"""Runtimes for synthetic programs that nobody measured: what an ensemble of rankers is sure of.

Each teacher's scores of a program's configurations are put on one scale. Configurations are kept
that form a chain: each is slower than all before it by more than the teachers differ about the two.
So every pair that is left is one the ensemble is confident about; programs of which too few
configurations are left are not taught.
"""

from collections.abc import Callable, Sequence
import pathlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry

FEWEST = 4
# Deviation of the logarithms of runtimes that a program is given: about that of real kernels.
_SPREAD = 0.5
_TYPICAL_NS = 1e6


def confident(scores: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
  """Configurations whose order the teachers agree about.

  Args:
    scores: (k, c) of each teacher, higher is faster.
    margin: a pair is confident where its mean difference exceeds this many standard deviations of
      the difference over the teachers.

  Returns:
    Their numbers, fastest first, and their runtimes in nanoseconds, whose order and proportions say
    what the teachers say; with less than two configurations of a kind both are empty.
  """
  scores = np.asarray(scores, np.float64)
  spread = scores.std(axis=1, keepdims=True)
  if scores.shape[1] < 2 or not (spread > 0).all():
    return np.zeros([0], np.int64), np.zeros([0], np.int64)
  scaled = (scores - scores.mean(axis=1, keepdims=True)) / spread
  mean = scaled.mean(axis=0)
  chain: list[int] = []
  for place in np.argsort(-mean, kind="stable").tolist():
    if chain:
      # Against all before it: a chain that drifts slowly would hold pairs nobody is sure of.
      differences = scaled[:, chain] - scaled[:, [place]]
      if (differences.mean(axis=0) <= margin * differences.std(axis=0)).any():
        continue
      if (mean[chain[-1]] - mean[place]) <= 1e-9:
        continue
    chain.append(place)
  kept = np.array(chain, np.int64)
  return kept, np.round(_TYPICAL_NS * np.exp(-_SPREAD * mean[kept])).astype(np.int64)


def teach(collection: str, teachers: Sequence[Callable[[graphs.Graph], np.ndarray]],
          output: pathlib.Path, margin: float = 1.0) -> int:
  """Writes a collection with the teachers' runtimes in place of measured ones, which are not read.

  Args:
    collection: its name or descriptor. Only its training split counts.
    teachers: each gives scores (c,) of a program's configurations.
    output: folder of the new collection.
    margin: see `confident`.

  Returns:
    How many programs are taught.

  Raises:
    DataError: the teachers are confident about no program.
  """
  described = registry.get_collection(collection)
  taught = 0
  for graph in collections.load_collection(described, "train"):
    kept, runtimes = confident(np.stack([score(graph) for score in teachers]), margin)
    if len(kept) < FEWEST:
      continue
    npz.save_graph(output / "npz" / "train" / f"{graph.name}.npz", _taught(graph, kept, runtimes))
    taught += 1
  if not taught:
    raise errors.DataError(
        f"{described.name}: of no program are {FEWEST} configurations left that the teachers are "
        "confident about; lower the margin, or train them longer")
  files.write_json(output / "collection.json", {
      "name": f"{described.name}_taught", "kind": described.kind, "target": described.target,
      "hlo_stage": described.hlo_stage, "path": "npz", "splits": {"train": taught},
      "has_runtimes": {"train": True}, "padding": described.padding,
      "description": "Synthetic programs with runtimes that an ensemble of rankers is sure of."})
  return taught


def _taught(graph: graphs.Graph, kept: np.ndarray, runtimes: np.ndarray) -> graphs.Graph:
  """The program with the configurations `kept`, which have these runtimes."""
  arrays = graph.arrays()
  # Of the other runtimes nothing may be left.
  arrays.pop("config_runtime_passes", None)
  if isinstance(graph, graphs.TileGraph):
    arrays.update(config_feat=graph.config_feat[kept],
                  config_runtime_normalizers=np.full(len(kept), runtimes.max(), np.int64))
  else:
    arrays["node_config_feat"] = graph.layouts(kept).astype(np.float32)
  return graphs.graph_from_arrays(graph.name, {**arrays, "config_runtime": runtimes})
