"""Small synthetic graphs and collections, for tests that need structure but no real data."""

import json
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz


def edges(rng: np.random.Generator, num_nodes: int) -> np.ndarray:
  """A connected DAG in which each node consumes one or two earlier ones."""
  rows = {(u, int(rng.integers(u))) for u in range(1, num_nodes) for _ in range(2)}
  return np.array(sorted(rows), np.int64).reshape(-1, 2)


def node_arrays(rng: np.random.Generator, num_nodes: int) -> dict[str, np.ndarray]:
  node_feat = np.zeros([num_nodes, graphs.NUM_NODE_FEATURES], np.float32)
  node_feat[-1, 0] = 1
  node_feat[:, 21:27] = rng.choice([1, 8, 64, 128, 512], [num_nodes, 6])
  node_feat[:, 27] = node_feat[:, 21:27].sum(axis=1)
  node_feat[:, 28] = node_feat[:, 21:27].prod(axis=1)
  return {"node_feat": node_feat,
          "node_opcode": rng.choice([2, 24, 34, 63, 96], num_nodes).astype(np.uint8),
          "edge_index": edges(rng, num_nodes)}


def tile_graph(seed: int, num_nodes: int = 6, num_configs: int = 12, name: str = "",
               **changes: Any) -> graphs.TileGraph:
  """A kernel whose runtime is a simple function of its tiles and its size, with ties."""
  rng = np.random.default_rng(seed)
  arrays = node_arrays(rng, num_nodes)
  tiles = rng.choice([8, 16, 32, 64, 128], [num_configs, 2]).astype(np.float32)
  config_feat = np.zeros([num_configs, graphs.NUM_TILE_FEATURES], np.float32)
  config_feat[:, 8:10] = tiles
  config_feat[:, 14] = tiles.sum(axis=1)
  config_feat[:, 15] = tiles.prod(axis=1)
  cost = 1e5 * (1 + np.abs(np.log2(tiles[:, 0] / 32)) + 0.3 * np.abs(np.log2(tiles[:, 1] / 64)))
  arrays.update(config_feat=config_feat, config_runtime=cost.astype(np.int64),
                config_runtime_normalizers=np.full(num_configs, int(cost[0]), np.int64))
  arrays.update(changes)
  return graphs.graph_from_arrays(name or f"family{seed % 3}.{seed}", arrays)


def layout_graph(seed: int, num_nodes: int = 10, num_configs: int = 12, num_config_nodes: int = 3,
                 name: str = "", **changes: Any) -> graphs.LayoutGraph:
  """A program whose runtime counts the nodes with a layout other than the default."""
  rng = np.random.default_rng(seed)
  arrays = node_arrays(rng, num_nodes)
  layouts = np.array([[0, 1, -1, -1, -1, -1], [1, 0, -1, -1, -1, -1], [-1] * 6], np.float32)
  pick = rng.integers(3, size=[num_configs, num_config_nodes, 3])
  feat = layouts[pick].reshape(num_configs, num_config_nodes, graphs.NUM_LAYOUT_FEATURES)
  cost = 1e6 + 1e4 * (pick == 1).sum(axis=(1, 2)) + 3e3 * (pick == 0).sum(axis=(1, 2))
  arrays.update(
      node_config_ids=np.sort(rng.choice(num_nodes, num_config_nodes, replace=False)),
      node_config_feat=feat, config_runtime=cost.astype(np.int64),
      node_splits=np.array([[0, num_nodes]]))
  arrays.update(changes)
  return graphs.graph_from_arrays(name or f"program{seed}", arrays)


def write_collection(folder: pathlib.Path, kind: str = "tile", counts=(6, 3, 3),
                     name: str | None = None, **sizes: int) -> pathlib.Path:
  """Writes a collection with train, valid and test splits; returns its descriptor's path."""
  make = tile_graph if kind == "tile" else layout_graph
  seed = 0
  for split, count in zip(("train", "valid", "test"), counts):
    for _ in range(count):
      graph = make(seed, **sizes)
      npz.save_graph(folder / "npz" / split / f"{graph.name}.npz", graph)
      seed += 1
  descriptor = {
      "name": name or f"{kind}:synthetic", "kind": kind, "target": "none", "path": "npz",
      "splits": dict(zip(("train", "valid", "test"), counts)),
      "family_regex": r"^(?P<family>[a-z]+\d)",
      "has_runtimes": {"train": True, "valid": True, "test": True}}
  path = folder / "collection.json"
  path.write_text(json.dumps(descriptor), encoding="utf-8")
  return path
