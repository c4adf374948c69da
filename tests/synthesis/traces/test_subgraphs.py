"""Sub-graphs of traces: consecutive levels, disjoint parts, no isolated nodes."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import subgraphs


def chain(length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Edges and types of a chain in which every other node has one more dependent, a leaf."""
  rng = np.random.default_rng(seed)
  spine = np.arange(length)
  edges = [np.stack([spine[1:], spine[:-1]], axis=1),
           np.stack([length + np.arange(length // 2), spine[::2][:length // 2]], axis=1)]
  return np.concatenate(edges), rng.integers(0, 5, length + length // 2)


def traces(*lengths: int) -> dags_lib.Dags:
  return dags_lib.canonical([chain(length, length) for length in lengths], ("type",))


def test_short_traces_are_cut_into_smaller_sub_graphs():
  # Ten blocks of about 36 nodes each: no validation section has 50 nodes.
  divided = subgraphs.divide(traces(240), 20)
  assert divided.min_nodes == 25
  assert min(int(graphs.sizes.min()) for graphs in divided.parts.values()) >= 25
  assert subgraphs.divide(traces(2400), 20).min_nodes == 100
  with pytest.raises(errors.DataError, match="12 to 400 nodes among 1 traces of 15 nodes"):
    subgraphs.divide(traces(10), 20)


def test_levels_count_from_the_nodes_without_dependencies():
  # 2 and 3 depend on 1, which depends on 0; 4 depends on nothing, and 3 depends on it.
  dags = dags_lib.canonical([(np.array([[1, 0], [2, 1], [3, 1], [3, 4]]), np.arange(5))])
  kind = dags.vocabularies[0][dags.x[:, 0]]
  level = subgraphs.execution_levels(dags, 0)
  assert dict(zip(kind.tolist(), level.tolist())) == {0: 0, 1: 1, 2: 2, 3: 2, 4: 0}


def test_a_window_keeps_the_edges_among_its_levels_and_no_isolated_node():
  dags = traces(20)
  level = subgraphs.execution_levels(dags, 0)
  nodes, edges = subgraphs.window(dags, 0, level, 5, 9)
  inside = (level >= 5) & (level < 9)
  expected = {(user, operand) for user, operand in dags.edges(0).tolist()
              if inside[user] and inside[operand]}
  assert {(int(nodes[user]), int(nodes[operand])) for user, operand in edges} == expected
  assert set(edges.reshape(-1).tolist()) == set(range(len(nodes)))
  # The leaf of level 5 depends on level 4 only.
  assert len(nodes) == inside.sum() - 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(5, 60),
       st.integers(0, 5))
def test_sections_cover_all_levels_once(widths, max_nodes, seed):
  level = np.repeat(np.arange(len(widths)), widths)
  found = subgraphs.sections([level], max_nodes, seed)
  assert [section.first for section in found] == [0] + [section.last for section in found[:-1]]
  assert found[-1].last == len(widths)
  assert all(one.part != other.part for one, other in zip(found, found[1:]))


def test_parts_share_no_level_and_sizes_are_within_the_bounds():
  dags = traces(900, 700)
  divided = subgraphs.divide(dags, 40, 20, 60, seed=1)
  assert set(divided.parts) == set(subgraphs.PARTS)
  for graphs in divided.parts.values():
    assert graphs.sizes.min() >= 20 and graphs.sizes.max() <= 60
    assert ((graphs.num_users > 0) | (graphs.num_operands > 0)).all()
  hashes = {part: set(graphs.wl.tolist()) for part, graphs in divided.parts.items()}
  assert not hashes["training"] & hashes["held_out"]
  assert not hashes["training"] & hashes["validation"]
  again = subgraphs.divide(dags, 40, 20, 60, seed=1)
  for part, graphs in divided.parts.items():
    np.testing.assert_array_equal(graphs.x, again.parts[part].x)


def test_an_equal_trace_is_used_once_and_similar_traces_have_the_same_sections():
  dags = traces(600)
  twice = dags.take([0, 0])
  divided = subgraphs.divide(twice, 20, 20, 60)
  assert divided.repeated == 1
  assert {section.graph for section in divided.sections} == {0}
  edges, types = chain(600, 600)
  types = types.copy()
  types[0] = 6
  similar = dags_lib.canonical([chain(600, 600), (edges, types)], ("type",))
  found = subgraphs.divide(similar, 20, 20, 60).sections
  halves = [[(section.part, section.first, section.last) for section in found
             if section.graph == graph] for graph in (0, 1)]
  assert halves[0] == halves[1]


def test_errors_say_what_to_change():
  with pytest.raises(errors.ConfigError, match="sub-graphs of 9 to 5 nodes"):
    subgraphs.divide(traces(100), 10, 9, 5)
  with pytest.raises(errors.DataError, match="--min_nodes"):
    subgraphs.divide(traces(30), 10, 200, 400)
