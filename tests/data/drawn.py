"""Strategies of `hypothesis` for directed graphs."""

from hypothesis import strategies as st
import numpy as np


@st.composite
def dags(draw, max_nodes=14):
  """(edges, n) of a directed graph without cycles, its nodes in any order, with repeated edges."""
  count = draw(st.integers(1, max_nodes))
  label = draw(st.permutations(range(count)))
  pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)),
                        max_size=3 * count))
  rows = [(label[max(pair)], label[min(pair)]) for pair in pairs if pair[0] != pair[1]]
  return np.array(rows, np.int64).reshape(-1, 2), count


@st.composite
def digraphs(draw, max_nodes=10):
  """(edges, n) of any directed graph: cycles and self-loops too."""
  count = draw(st.integers(1, max_nodes))
  node = st.integers(0, count - 1)
  rows = draw(st.lists(st.tuples(node, node), max_size=2 * count))
  return np.array(rows, np.int64).reshape(-1, 2), count
