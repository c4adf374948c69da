"""Small random labeled graphs, whose label depends on their structure."""

import numpy as np

from tpugraphs_rank.synthesis.dags import dags as dags_lib


def graphs(count, seed=0, opcodes=4, max_nodes=12, chance=0.5):
  """Graphs with one root; the noise-free label depends on the mean opcode and the size."""
  rng = np.random.default_rng(seed)
  parts, labels = [], []
  for _ in range(count):
    size = int(rng.integers(3, max_nodes + 1))
    edges = [(int(rng.integers(node)), node) for node in range(1, size)]
    edges += [(int(rng.integers(node)), node) for node in range(1, size) if rng.random() < chance]
    kinds = rng.integers(0, opcodes, size)
    parts.append((np.array(edges), kinds))
    labels.append(1.0 + kinds.mean() + 0.1 * size)
  return dags_lib.canonical(parts, vocabularies=[np.arange(opcodes)], y=np.array(labels))
