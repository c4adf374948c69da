"""Training time of the recipes of the public collections, from a step on synthetic programs."""

import functools
from typing import Any

import numpy as np

from experiments.benchmarks import execution
from experiments.benchmarks import programs
from experiments.benchmarks import timing
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import models
from tpugraphs_rank import recipes as recipe_files
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.training import steps

# Mean numbers of nodes (arXiv 2308.13490).
_NODES = {"tile:xla": 40, "layout:xla:default": 14_105, "layout:xla:random": 14_105,
          "layout:nlp:default": 5_659, "layout:nlp:random": 5_659}


def _tile(nodes: int, seed: int) -> graphs.TileGraph:
  rng = np.random.default_rng(seed)
  base = programs.program(nodes, 0.2, 2, seed)
  return graphs.TileGraph(
      name=f"synthetic.{seed}", node_feat=base.node_feat, node_opcode=base.node_opcode,
      edge_index=base.edge_index, config_runtime=rng.permutation(64) + 1000,
      config_feat=rng.integers(1, 128, [64, 24]).astype(np.float32),
      config_runtime_normalizers=np.full(64, 1000))


def measure(repeats: int) -> list[dict[str, Any]]:
  """For each recipe the time of a training step, and of all steps without validation."""
  rows = []
  for name, nodes in _NODES.items():
    config = config_lib.from_dict(
        run_config.RunConfig, recipe_files.read(name.replace(":", "_")))
    kind = name.partition(":")[0]
    size = config.batch.batch_size
    members = [_tile(nodes, seed) if kind == "tile" else programs.program(nodes, 0.13, 64, seed)
               for seed in range(size)]
    normalizer = normalize.Normalizer.fit(
        members, costs=config.model.tile_features == "costs",
        facts=registry.get_collection(name).facts if config.model.layout_costs != "none" else None)
    segments = config.batch.segment_mode in ("drop", "backprop")
    cut = config.batch.max_nodes if segments else None
    prepared = [batches.prepare(splits.ProgramView(graph), normalizer, cut) for graph in members]
    model = models.build_model(kind, config)
    batch = model.arrange(batches.training_batch(
        prepared, config.batch, np.random.default_rng(0)))
    arrays, spec = execution.tensors(batch)
    model.create_variables(arrays)
    stepper = steps.Stepper(model, config, 1000, spec)
    seconds = timing.interleaved(
        {"step": functools.partial(stepper.train, arrays)}, repeats)["step"]
    count = registry.get_collection(name).splits["train"] or 0
    number = -(-count * config.batch.lists_per_graph // size) * config.training.epochs
    rows.append({"recipe": name, "nodes": nodes, "steps": number, **seconds,
                 "hours": number * seconds["cpu_s"] / 3600})
  return rows
