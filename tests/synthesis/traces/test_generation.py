"""What happens to samples before they become traces: sizes, stitching, hidden names, durations."""

import numpy as np
import pytest

from tests.synthesis.traces import test_subgraphs
from tpugraphs_rank import errors
from tpugraphs_rank.cli import chakra_synthesize
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import generation
from tpugraphs_rank.synthesis.traces import subgraphs


def test_requested_sizes_are_in_the_range_or_those_of_training():
  training = test_subgraphs.traces(20, 30)
  sizes = generation.sizes(200, (5, 9), training, 0)
  assert set(sizes.tolist()) == {5, 6, 7, 8, 9}
  assert set(generation.sizes(50, None, training, 0).tolist()) == set(training.sizes.tolist())
  np.testing.assert_array_equal(sizes, generation.sizes(200, (5, 9), training, 0))


def test_stitched_graphs_run_one_after_another():
  graphs = test_subgraphs.traces(4, 6, 5)
  joined = generation.stitch(graphs, 2)
  assert joined.sizes.tolist() == [graphs.sizes[:2].sum(), graphs.sizes[2]]
  depths = [subgraphs.execution_levels(graphs, graph).max() + 1 for graph in range(3)]
  assert subgraphs.execution_levels(joined, 0).max() + 1 == depths[0] + depths[1]
  # One edge from each first node of the second graph to each last node of the first.
  last = (subgraphs.execution_levels(graphs, 0) == depths[0] - 1).sum()
  assert np.diff(joined.edge_off)[0] == np.diff(graphs.edge_off)[:2].sum() + last
  assert generation.stitch(graphs, 1) is graphs
  with pytest.raises(errors.ConfigError, match="0 graphs together"):
    generation.stitch(graphs, 0)


def test_obfuscated_graphs_have_no_names():
  dags = dags_lib.canonical(
      [(np.array([[1, 0]]), np.array([[0, 1], [1, 0]]))], ("type", "operator"),
      (np.array(["COMM_COLL_NODE", "COMP_NODE"]), np.array(["secret_attention", "secret_mul"])),
      provenance={"buckets": {"per_octave": 2}, "workloads": ["secret_model"]})
  names = {"secret_attention": "op_2", "secret_mul": "op_1"}
  hidden = generation.obfuscate(dags, names, 0)
  assert hidden.vocabularies[1].tolist() == ["op_2", "op_1"]
  assert hidden.vocabularies[0].tolist() == ["COMM_COLL_NODE", "COMP_NODE"]
  assert hidden.provenance == {"buckets": {"per_octave": 2}}
  np.testing.assert_array_equal(hidden.x, dags.x)
  assert hidden.wl.tolist() == hidden.hashes().tolist() != dags.wl.tolist()


def test_durations_are_the_numbers_of_the_buckets():
  dags = dags_lib.canonical(
      [(np.array([[1, 0], [2, 1]]), np.array([[0], [1], [2]]))], ("duration",),
      (np.array(["0", "12-15", "4-5"]),))
  assert sorted(generation.durations(dags, {"12-15": 13}).tolist()) == [0.0, 4.0, 13.0]


@pytest.mark.parametrize("text,expected", [
    (None, None), ("200:400", (200, 400)), ("50", (50, 50)), (" 2:3 ", (2, 3))])
def test_ranges_of_nodes(text, expected):
  assert chakra_synthesize.node_range(text) == expected


@pytest.mark.parametrize("text", ["", "400:200", "1:5", "a:b", "200:", "-3", "99999999", "2:3:4"])
def test_other_ranges_are_refused(text):
  with pytest.raises(errors.ConfigError, match="expected MIN:MAX"):
    chakra_synthesize.node_range(text)
