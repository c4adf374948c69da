"""Scoring through the public API: a run directory, a packed program, and `Run.score`."""

from collections.abc import Iterator
import pathlib
import time
from typing import Any

import numpy as np

from experiments.benchmarks import cases
from experiments.benchmarks import programs
import tpugraphs_rank
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import packed_layouts

NODES, COVERAGE = 20_000, 0.13
# Configurations that are scored before timing, so that functions are traced.
_WARM_UP = 64
_BLOCK = 1_000


def write_run(run_dir: pathlib.Path, folder: pathlib.Path) -> None:
  """Trains one epoch on four small programs; the quality of the model does not affect its speed."""
  from tpugraphs_rank.training import trainer  # Imports TensorFlow, which packing must not.
  for number in range(4):
    split = "valid" if number == 3 else "train"
    (folder / split).mkdir(parents=True, exist_ok=True)
    npz.save_graph(folder / split / f"g{number}.npz", programs.program(300, COVERAGE, 8, number))
  files.write_json(folder / "collection.json", {
      "name": "layout:small", "kind": "layout", "target": "none",
      "splits": {"train": 3, "valid": 1}})
  trainer.Trainer(config_lib.override(run_config.RunConfig(), {
      "data.collection": str(folder / "collection.json"), "model.hidden_width": 32,
      "training.epochs": 1, "training.tensorboard": False})).train(run_dir)


def write_program(path: pathlib.Path, kind: str, count: int, nodes: int = NODES) -> int:
  """Packs a program with many configurations, in blocks.

  Args:
    path: the packed file to write.
    kind: kind of the configurations, "searched" or "random".
    count: number of configurations.
    nodes: number of nodes.

  Returns:
    Size in bytes of the unpacked layouts, at one byte per number.
  """
  graph = programs.program(nodes, COVERAGE, 2)
  configurable = len(graph.node_config_ids)
  arrays: dict[str, Any] = {
      **graph.arrays(), "config_runtime": np.arange(count) + 1000,
      "node_config_feat": graphs.Unread((count, configurable, 18), np.dtype(np.int8))}
  measured = graphs.graph_from_arrays(graph.name, arrays)

  def blocks() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(1)
    if kind == "searched":
      return programs.searched_blocks(configurable, count, rng, _BLOCK)
    return (programs.random_layouts(configurable, min(_BLOCK, count - start), rng)
            for start in range(0, count, _BLOCK))

  with files.atomic_write(path) as file:
    writer = packed_format.Writer(file)
    for name, array in measured.arrays().items():
      if name not in ("feature_padding", "node_config_feat"):
        writer.add(name, array)
    writer.add("order", np.arange(count, dtype=np.uint32))
    packed_layouts.write(writer, configurable, blocks)
    writer.finish({"kind": "layout", "feature_padding": graph.feature_padding,
                   "source": "synthetic", "has_runtimes": True})
  return count * configurable * 18


def score(run_dir: str, path: str) -> dict[str, Any]:
  """Scores all configurations of a packed program with `Run.score`."""
  run = tpugraphs_rank.load_run(run_dir)
  graph = packed_graphs.open_graph(packed_format.Reader(path))
  assert isinstance(graph, graphs.LayoutGraph)
  run.score(graph, graph.layouts(np.arange(_WARM_UP)))
  started = time.process_time(), time.perf_counter()
  scores = run.score(graph)
  cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
  return {"per_cpu_s": len(scores) / cpu, "per_wall_s": len(scores) / wall,
          "peak_gb": cases.peak_gb()}
