"""Trains a generator on sub-graphs of traces and samples new graphs from it, resumably."""

from collections.abc import Mapping
import dataclasses
import pathlib
import time
from typing import Any, TYPE_CHECKING

import numpy as np

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import settings
from tpugraphs_rank.synthesis.traces import kinds

if TYPE_CHECKING:
  from tpugraphs_rank.synthesis.layerdag import model as model_lib

# Traces are long chains with side branches: they grow in the order of execution, and a node
# depends on recent nodes only. One section of a trace is unlike the next, so that a validation
# section would end the training far too early. Training is short instead, and it is measured what
# the samples reveal.
DEFAULTS: Mapping[str, Any] = {
    "data.direction": "operands_first", "data.conditions": ("size", "depth", "edges", "roots"),
    "network.width": 64, "network.dropout": 0.1, "network.edge_steps": 6, "network.node_steps": 12,
    "fit.batch_graphs": 8, "fit.epochs": 18, "fit.patience": 18, "fit.learning_rate": 3e-3,
    "fit.average": 0.98, "fit.calibration_rounds": 5,
    "fit.tensorboard": False}
_CHUNK = 64  # Graphs sampled at a time; an interruption loses one chunk.


@dataclasses.dataclass(frozen=True)
class Sampled:
  """Generated graphs.

  Attributes:
    graphs: the graphs, with `kind` as the first attribute; y holds the requested sizes.
    abandoned: draws that were abandoned and sampled again.
    corrected: for each attribute the number of nodes that `kinds.consistent` changed.
    cpu_seconds: CPU time of the sampling.
  """

  graphs: dags_lib.Dags
  abandoned: int
  corrected: dict[str, int]
  cpu_seconds: float


def config(folder: pathlib.Path, changes: Mapping[str, Any]) -> settings.LayerDagConfig:
  """The configuration of the generator whose graphs are in a folder; `changes` by dotted names."""
  return config_lib.override(settings.LayerDagConfig(), {
      **DEFAULTS, "data.graphs": str(folder / "training_kinds.npz"), **changes})


def train(parts: Mapping[str, dags_lib.Dags], folder: pathlib.Path, changes: Mapping[str, Any]
          ) -> "model_lib.LayerDAG":
  """Trains a generator in FOLDER/generator, or resumes its training.

  Args:
    parts: sub-graphs of traces; the generator sees only "training".
    folder: folder of the graphs and of the run.
    changes: settings other than the defaults.

  Raises:
    RunDirectoryError: the folder holds a generator of other graphs or settings.
  """
  from tpugraphs_rank.synthesis.layerdag import model
  from tpugraphs_rank.synthesis.layerdag import training
  dags_lib.save(folder / "training_kinds.npz", kinds.join(parts["training"]))
  training.Trainer(config(folder, changes)).train(folder / "generator")
  return model.LayerDAG.load(folder / "generator" / "model.npz")


def sizes(count: int, nodes: tuple[int, int] | None, training: dags_lib.Dags, seed: int
          ) -> np.ndarray:
  """(count,) numbers of nodes to request, in random order.

  They are uniform in a range, or evenly spaced in the sorted sizes of the training graphs.
  """
  rng = np.random.default_rng([seed, 29])
  if nodes is None:
    places = (np.arange(count) + 0.5) / count * len(training)
    return rng.permutation(np.sort(training.sizes)[places.astype(int)])
  return rng.integers(nodes[0], nodes[1] + 1, size=count)


def sample(model: "model_lib.LayerDAG", training: dags_lib.Dags, requested: np.ndarray, seed: int,
           folder: pathlib.Path) -> Sampled:
  """Samples a graph for each requested size; finished chunks in the folder are not repeated.

  Args:
    model: the generator.
    training: its training graphs, with joined attributes.
    requested: (n,) numbers of nodes.
    seed: seed of the samples.
    folder: folder of the chunks.

  Raises:
    TrainingError: almost no graph can be completed.
  """
  from tpugraphs_rank.synthesis.layerdag import sampler
  options = sampler.Options(batch=_CHUNK)
  chunks, abandoned, seconds = [], 0, 0.0
  for number, start in enumerate(range(0, len(requested), _CHUNK)):
    wanted = requested[start:start + _CHUNK].astype(np.float64)
    path = folder / f"{number:05d}.npz"
    about = {"model": model.hash(), "sizes": wanted.tolist(), "seed": seed}
    chunk = _finished(path, about)
    if chunk is None:
      began = time.process_time()
      # All chunks have the same number of rows, so that the samples do not depend on the count.
      chunk = model.sample(len(wanted), {"size": wanted}, seed * 100_003 + number, options)
      chunk = chunk.with_provenance({
          **chunk.provenance, "request": about, "cpu_seconds": time.process_time() - began})
      dags_lib.save(path, chunk)
    abandoned += int(chunk.provenance["given_up"])
    seconds += float(chunk.provenance["cpu_seconds"])
    chunks.append(chunk)
  graphs, corrected = kinds.consistent(
      dags_lib.concat(chunks).in_vocabularies(training.vocabularies), training, seed)
  return Sampled(graphs, abandoned, corrected, seconds)


def _finished(path: pathlib.Path, about: Mapping[str, Any]) -> dags_lib.Dags | None:
  """The chunk in a file, if it holds what is asked for."""
  if not path.exists():
    return None
  try:
    chunk = dags_lib.load(path)
  except errors.OutOfMemoryError:
    raise
  except errors.TpuGraphsRankError:
    return None
  return chunk if chunk.provenance.get("request") == about else None


def stitch(graphs: dags_lib.Dags, together: int) -> dags_lib.Dags:
  """Joins groups of consecutive graphs into longer ones, one after another in the execution.

  A node without dependencies of a later graph then depends on the last level of the graph before
  it. A group of fewer graphs at the end is joined as well.

  Args:
    graphs: the graphs.
    together: number of graphs in each result.

  Raises:
    ConfigError: `together` is below 1.
  """
  if together < 1:
    raise errors.ConfigError(f"{together} graphs together; expected at least 1")
  if together == 1:
    return graphs
  from tpugraphs_rank.synthesis.traces import subgraphs
  parts = []
  for start in range(0, len(graphs), together):
    edges, x, offset = [], [], 0
    last: np.ndarray | None = None
    for graph in range(start, min(start + together, len(graphs))):
      rows = graphs.nodes(graph)
      level = subgraphs.execution_levels(graphs, graph)
      edges.append(graphs.edges(graph).astype(np.int64) + offset)
      first = np.flatnonzero(level == 0) + offset
      if last is not None:
        edges.append(np.stack([np.repeat(first, len(last)), np.tile(last, len(first))], axis=1))
      last = np.flatnonzero(level == level.max()) + offset
      x.append(graphs.x[rows])
      offset += rows.stop - rows.start
    parts.append((np.concatenate(edges), np.concatenate(x)))
  return dags_lib.canonical(parts, graphs.x_names, graphs.vocabularies,
                            provenance={**graphs.provenance, "stitched": together})


def obfuscate(graphs: dags_lib.Dags, names: Mapping[str, str], key: int) -> dags_lib.Dags:
  """Hides what a trace says in words: operators get other names.

  Node types, collectives and buckets of numbers stay, because simulators need them. The export
  numbers process groups. The provenance keeps only what is needed to read the buckets. The nodes of
  a level are shuffled: samples list them in the order of their kinds, that is, of their names.

  Args:
    graphs: the graphs.
    names: the new name of each operator.
    key: secret seed of the order of the nodes.
  """
  rng = np.random.default_rng(key)
  words = list(graphs.vocabularies)
  if "operator" in graphs.x_names:
    column = graphs.x_names.index("operator")
    words[column] = np.array([names[str(word)] for word in words[column]])
  shuffled = []
  for graph in range(len(graphs)):
    rows = graphs.nodes(graph)
    order = rng.permutation(rows.stop - rows.start)
    shuffled.append((np.argsort(order)[graphs.edges(graph)], graphs.x[rows][order]))
  return dags_lib.canonical(
      shuffled, graphs.x_names, words,
      provenance={name: value for name, value in graphs.provenance.items() if name == "buckets"})


def clear(folder: pathlib.Path) -> None:
  """Removes the chunks of earlier samples; other files stay."""
  for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].npz"):
    path.unlink(missing_ok=True)


def durations(graphs: dags_lib.Dags, values: Mapping[str, int]) -> np.ndarray:
  """(N,) microseconds of each node, from the buckets of `chakra.graphs`; 0 where not measured."""
  from tpugraphs_rank.chakra import buckets
  words = graphs.vocabularies[graphs.x_names.index("duration")]
  numbers = [buckets.number(str(word), values) for word in words]
  table = np.array([0 if number is None else number[0] for number in numbers], np.float64)
  return table[graphs.x[:, graphs.x_names.index("duration")]]


