"""Labels unmeasured synthetic programs with the confident predictions of an ensemble of rankers.

Each teacher's scores of a program's configurations are standardized. A chain of configurations is
kept in which each is slower than all before it by more than the teachers disagree about the two.
The ensemble is therefore confident about every remaining pair. Programs with too few remaining
configurations are skipped.
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

MIN_CONFIGURATIONS = 4
# Standard deviation of the logarithms of the assigned runtimes: about that of real kernels.
_SPREAD = 0.5
_TYPICAL_NS = 1e6


def confident(scores: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
  """Configurations about whose order the teachers agree.

  Args:
    scores: (k, c) scores of each teacher; higher is faster.
    margin: a pair is confident if its mean difference exceeds this many standard deviations of the
      difference over the teachers.

  Returns:
    Indices of the configurations, fastest first, and their runtimes in nanoseconds, which reflect
    the order and the distances of the teachers' scores. Both are empty if there are fewer than two
    configurations or a teacher's scores are all equal.
  """
  scores = np.asarray(scores, np.float64)
  spread = scores.std(axis=1, keepdims=True)
  if scores.shape[1] < 2 or not (spread > 0).all():
    return np.zeros([0], np.int64), np.zeros([0], np.int64)
  scaled = (scores - scores.mean(axis=1, keepdims=True)) / spread
  mean = scaled.mean(axis=0)
  chain: list[int] = []
  for index in np.argsort(-mean, kind="stable").tolist():
    if chain:
      # Compare with all before it: in a slowly drifting chain distant pairs may be uncertain.
      differences = scaled[:, chain] - scaled[:, [index]]
      if (differences.mean(axis=0) <= margin * differences.std(axis=0)).any():
        continue
      if (mean[chain[-1]] - mean[index]) <= 1e-9:
        continue
    chain.append(index)
  kept = np.array(chain, np.int64)
  return kept, np.round(_TYPICAL_NS * np.exp(-_SPREAD * mean[kept])).astype(np.int64)


def teach(collection: str, teachers: Sequence[Callable[[graphs.ConfiguredGraph], np.ndarray]],
          output: pathlib.Path, margin: float = 1.0) -> int:
  """Writes a collection with the teachers' runtimes; measured runtimes are not read.

  Args:
    collection: name or descriptor of the collection; only its training split is used.
    teachers: functions that return scores (c,) of a program's configurations.
    output: folder of the new collection.
    margin: see `confident`.

  Returns:
    The number of labeled programs.

  Raises:
    DataError: the teachers are not confident about any program.
  """
  described = registry.get_collection(collection)
  taught = 0
  for graph in collections.load_collection(described, "train"):
    kept, runtimes = confident(np.stack([score(graph) for score in teachers]), margin)
    if len(kept) < MIN_CONFIGURATIONS:
      continue
    npz.save_graph(output / "npz" / "train" / f"{graph.name}.npz", _taught(graph, kept, runtimes))
    taught += 1
  if not taught:
    raise errors.DataError(
        f"{described.name}: the teachers are not confident about {MIN_CONFIGURATIONS} "
        "configurations of any program; lower the margin, or train the teachers longer")
  files.write_json(output / "collection.json", {
      "name": f"{described.name}_taught", "kind": described.kind, "target": described.target,
      "hlo_stage": described.hlo_stage, "path": "npz", "splits": {"train": taught},
      "has_runtimes": {"train": True}, "padding": described.padding,
      "description": "Synthetic programs with runtimes predicted by an ensemble of rankers."})
  return taught


def _taught(graph: graphs.ConfiguredGraph, kept: np.ndarray, runtimes: np.ndarray
            ) -> graphs.Graph:
  """The program with only the configurations `kept`, which get these runtimes."""
  arrays = graph.arrays()
  # Remove all measured runtimes.
  arrays.pop("config_runtime_passes", None)
  if isinstance(graph, graphs.TileGraph):
    arrays.update(config_feat=graph.config_feat[kept],
                  config_runtime_normalizers=np.full(len(kept), runtimes.max(), np.int64))
  elif isinstance(graph, graphs.LayoutGraph):
    arrays["node_config_feat"] = graph.layouts(kept).astype(np.float32)
  return graphs.graph_from_arrays(graph.name, {**arrays, "config_runtime": runtimes})
