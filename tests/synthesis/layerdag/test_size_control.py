"""Limits of the sizes of generated graphs: only layers after which a graph can end in time."""

import fractions

import numpy as np
import pytest

from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import size_control


def _state(count, front, room, most_open, lower, upper, users=growth.MANY):
  return size_control.State(*(np.array([value]) for value in (
      count, front, room, most_open, lower, upper, users)))


def test_limits_surround_the_requested_size():
  target = np.array([0.0, 29.0, 100.0, 400.0])
  limits = size_control.Limits.of(target, 0.25, None, None, 200, 30)
  np.testing.assert_array_equal(limits.lower, [0, 0, 75, 300])
  # Without a request, and for small graphs, the largest training graph counts.
  np.testing.assert_array_equal(limits.upper, [200, 200, 125, 500])
  exact = size_control.Limits.of(target, 0.0, None, None, 200, 30)
  np.testing.assert_array_equal(exact.lower, [0, 0, 100, 400])
  np.testing.assert_array_equal(exact.upper, [200, 200, 102, 402])
  # Half more than in training, for graphs twice as large.
  assert limits.max_layers == 90
  np.testing.assert_array_equal(limits.take([2]).lower, [75])


@pytest.mark.parametrize("tolerance", [0.25, 0.1, 0.3])
def test_limits_never_exceed_the_tolerance(tolerance):
  target = np.arange(30.0, 500.0)
  limits = size_control.Limits.of(target, tolerance, None, None, 1000, 30)
  parts = fractions.Fraction(str(tolerance))
  for requested, lower, upper in zip(target.astype(int).tolist(), limits.lower, limits.upper):
    within = [count for count in range(2 * requested)
              if abs(count - requested) <= parts * requested]
    assert (lower, upper) == (within[0], within[-1])


def test_limits_without_tolerance_leave_room_above_the_request():
  limits = size_control.Limits.of(np.array([0.0, 100.0, 400.0]), None, None, 7, 200, 30)
  np.testing.assert_array_equal(limits.lower, [0, 0, 0])
  np.testing.assert_array_equal(limits.upper, [200, 200, 600])
  assert limits.max_layers == 7


def test_a_limit_of_nodes_is_never_exceeded():
  limits = size_control.Limits.of(np.array([0.0, 100.0]), 0.25, 60, None, 200, 30)
  np.testing.assert_array_equal(limits.upper, [60, 60])
  np.testing.assert_array_equal(limits.lower, [0, 60])


@pytest.mark.parametrize("state,sizes", [
    # Complete: no open slot.
    (_state(10, 0, 0, 0, 5, 20), [0]),
    # Each new node has a user in the last layer.
    (_state(10, 2, 5, 3, 5, 20), [1, 2]),
    # One node may follow: it has to fill all slots.
    (_state(19, 2, 2, 1, 5, 20), [1]),
    # Three nodes may follow and one node needs three operands: a layer of two may continue.
    (_state(17, 3, 3, 3, 5, 20), [1, 2, 3]),
    # No node may follow.
    (_state(20, 2, 2, 2, 5, 20), []),
])
def test_allowed_sizes(state, sizes):
  allowed = size_control.allowed_sizes(state, np.arange(6), False)
  assert np.flatnonzero(allowed[0]).tolist() == sizes


def test_the_first_layer_has_nodes_within_the_limit():
  allowed = size_control.allowed_sizes(_state(0, 0, 0, 0, 2, 3), np.arange(6), True)
  assert np.flatnonzero(allowed[0]).tolist() == [1, 2, 3]


@pytest.mark.parametrize("state,size,inners", [
    # Below the lower bound the graph must continue.
    (_state(4, 2, 2, 1, 8, 20), 2, [1, 2]),
    # It may end once it is large enough and the layer fills the node with the most open slots.
    (_state(8, 2, 2, 2, 8, 20), 2, [0, 1, 2]),
    (_state(8, 2, 3, 3, 8, 20), 2, [1, 2]),
    # Nothing may follow: no new node has operands.
    (_state(18, 2, 2, 1, 8, 20), 2, [0]),
    # 12 nodes may follow, with 2 users each: 24 slots, of which 20 are open. Nodes have 2 operands.
    (_state(8, 4, 20, 2, 8, 20), 4, [0, 1, 2]),
])
def test_allowed_numbers_of_nodes_with_operands(state, size, inners):
  allowed = size_control.allowed_inners(state, np.array([size]), np.arange(6), 2.0, 2.0)
  assert np.flatnonzero(allowed[0]).tolist() == inners


def test_graphs_of_any_end_stop_between_their_bounds():
  number = np.arange(4)
  allow = lambda count: np.flatnonzero(size_control.allowed_sizes_of_any_end(
      _state(count, 1, 3, 1, 8, 12), number, False)[0]).tolist()
  assert allow(7) == [1, 2, 3]
  assert allow(8) == [0, 1, 2, 3]
  assert allow(11) == [0, 1]
  assert allow(12) == [0]
  # The last layer may have two users in total; at least one, so that a graph can always continue.
  for users, expected in ((2, [1, 2]), (0, [1])):
    allowed = size_control.allowed_sizes_of_any_end(
        _state(7, 1, 3, 1, 8, 12, users), number, False)
    assert np.flatnonzero(allowed[0]).tolist() == expected
  first = size_control.allowed_sizes_of_any_end(_state(0, 0, 0, 0, 8, 12), number, True)
  assert np.flatnonzero(first[0]).tolist() == [1, 2, 3]


def test_mean_operands_counts_nodes_with_operands_only():
  kinds = growth.Kinds(np.array([0, 1, 2], np.int32), np.array([0, 1, 3], np.int32),
                       np.ones(3, np.int32))
  assert size_control.mean_operands(kinds, np.array([0.5, 0.25, 0.25])) == 2.0
  assert size_control.mean_operands(kinds, np.array([1.0, 0.0, 0.0])) == 1.0
