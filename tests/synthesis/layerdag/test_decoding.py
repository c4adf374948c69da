"""Constrained edges are valid for any priorities."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np

from tpugraphs_rank.synthesis.layerdag import decoding


@st.composite
def _layers(draw, for_users=False):
  count, new = draw(st.integers(1, 6)), draw(st.integers(1, 5))
  floats = st.floats(-5, 5)
  return decoding.Layer(
      draw(hnp.arrays(np.float64, (count, new), elements=floats)),
      draw(hnp.arrays(bool, count)),
      draw(hnp.arrays(np.int64, count, elements=st.integers(1, 4))),
      draw(hnp.arrays(np.int64, new, elements=st.integers(0, 3))),
      draw(hnp.arrays(np.int64, new if for_users else count, elements=st.integers(0, 4))),
      draw(hnp.arrays(np.float64, (new, 3), elements=floats)))


@given(_layers())
def test_free_edges_are_the_likely_ones_and_at_least_one_per_node(layer):
  joined = decoding.free(layer)
  likely = layer.priority > 0
  assert joined.any(axis=0).all()
  several = likely.any(axis=0)
  np.testing.assert_array_equal(joined[:, several], likely[:, several])
  alone = np.flatnonzero(~several)
  assert (joined[:, alone].sum(axis=0) == 1).all()
  np.testing.assert_array_equal(layer.priority[:, alone].max(axis=0),
                                layer.priority[joined[:, alone].argmax(axis=0), alone])


@given(_layers(for_users=True), st.integers(0, 5))
def test_users_respect_their_slots_and_leave_only_fillable_ones(layer, remaining):
  joined = decoding.to_users(layer, remaining)
  below = remaining if layer.operands.any() else 0
  possible = (layer.slots[layer.front].sum() >= len(layer.operands)
              and (layer.slots - len(layer.operands) <= below).all())
  assert (joined is not None) == possible
  if joined is None:
    return
  assert (joined.sum(axis=1) <= layer.slots).all()
  assert joined[layer.front].any(axis=0).all()
  assert (layer.slots - joined.sum(axis=1) <= below).all()
  # More users than in training only where a slot could not be filled later.
  if layer.slots.max() <= below:
    assert (joined.sum(axis=0) <= np.maximum(layer.most_users, 1)).all()


@given(_layers())
def test_each_node_has_its_operands_with_one_in_the_previous_layer(layer):
  joined = decoding.to_operands(layer)
  possible = (layer.front.any() and (layer.operands >= 1).all()
              and (layer.operands <= len(layer.slots)).all())
  assert (joined is not None) == possible
  if joined is None:
    return
  np.testing.assert_array_equal(joined.sum(axis=0), layer.operands)
  assert joined[layer.front].any(axis=0).all()
  # With one operand per node, candidates get too many users only if the previous layer is full.
  if (layer.operands == 1).all() and (
      layer.most_users[layer.front].sum() >= len(layer.operands)):
    assert (joined.sum(axis=1) <= layer.most_users).all()


def test_likely_edges_are_kept_where_they_fit():
  layer = decoding.Layer(np.array([[3.0, -2.0, 1.0], [-1.0, 2.0, -4.0]]), np.array([True, True]),
                         np.array([2, 1]), np.array([0, 0, 0]), np.array([9, 9, 9]),
                         np.zeros([3, 1]))
  np.testing.assert_array_equal(decoding.to_users(layer, 9), [[1, 0, 1], [0, 1, 0]])
  layer = layer._replace(operands=np.array([1, 1, 2]), front=np.array([True, False]),
                         most_users=np.array([9, 9]))
  np.testing.assert_array_equal(decoding.to_operands(layer), [[1, 1, 1], [0, 0, 1]])


def test_no_node_gets_more_users_than_in_training():
  # The first candidate is the likeliest operand of all three nodes, but has two users at most.
  layer = decoding.Layer(np.array([[3.0, 2.0, 1.0], [0.0, 0.0, 0.0]]), np.array([True, True]),
                         np.array([3, 3]), np.array([1, 1, 1]), np.array([2, 2]),
                         np.zeros([3, 1]))
  np.testing.assert_array_equal(decoding.to_operands(layer), [[1, 1, 0], [0, 0, 1]])
  # Operands come before the limit.
  layer = layer._replace(most_users=np.array([1, 0]))
  np.testing.assert_array_equal(decoding.to_operands(layer), [[1, 1, 1], [0, 0, 0]])
  layer = layer._replace(most_users=np.array([2, 1, 1]), slots=np.array([3, 1]),
                         priority=np.array([[3.0, 2.0, 1.0], [2.5, 2.5, 2.5]]))
  np.testing.assert_array_equal(decoding.to_users(layer, 9), [[1, 0, 1], [0, 1, 0]])
  layer = layer._replace(most_users=np.array([2, 2, 2]))
  np.testing.assert_array_equal(decoding.to_users(layer, 9), [[1, 1, 1], [0, 1, 0]])


def test_more_users_of_a_node_depend_on_those_that_it_has():
  # One new node and four users in the previous layer, all likely by 1.
  layer = decoding.Layer(np.ones([4, 1]), np.ones(4, bool), np.ones(4, np.int64),
                         np.array([1]), np.array([9]), np.zeros([1, 1]))
  for again, users in (([0.0], 4), ([-2.0], 1), ([0.0, -2.0], 2), ([0.0, 0.0, -2.0, 5.0], 3)):
    joined = decoding.to_users(layer._replace(again=np.array([again])), 9)
    assert joined.sum() == users


@given(_layers(), st.randoms(use_true_random=False))
def test_the_order_of_new_nodes_does_not_matter(layer, random):
  order = list(range(len(layer.operands)))
  random.shuffle(order)
  distinct = layer._replace(priority=np.argsort(np.argsort(
      layer.priority, axis=None, kind="stable")).reshape(layer.priority.shape) - 5.5)
  moved = distinct._replace(priority=distinct.priority[:, order], operands=distinct.operands[order],
                            again=distinct.again[order])
  # The limit of new nodes, in place of that of candidates.
  limits = np.arange(len(order)) % 3
  to_users = lambda pairs: decoding.to_users(pairs._replace(
      most_users=limits if pairs is distinct else limits[order]), 2)
  for decode in (decoding.free, to_users, decoding.to_operands):
    actual, other = decode(distinct), decode(moved)
    assert (actual is None) == (other is None)
    if actual is not None:
      np.testing.assert_array_equal(actual[:, order], other)


def test_a_layer_of_a_graph_that_continues_has_a_node_that_may_have_users():
  # Kinds 0 and 1 never have users. Graph 0 has a node of kind 2; graphs 1 and 2 have none.
  x, step = np.array([[0, 5], [2, 6], [0, 7], [1, 8], [1, 9]]), np.array([0, 0, 1, 1, 2])
  likely = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0.9, 0, 0.1, 0], [0.2, 0.3, 0, 0.5],
                     [0, 1, 0, 0]])
  most = np.array([0, 0, 1, 3])
  rng = np.random.default_rng(0)
  changed = decoding.with_users(x, likely, step, np.array([True, True, True]), most, rng)
  # The second node of graph 1 is the likeliest; graph 2 cannot have any.
  assert changed.tolist() == [[0, 5], [2, 6], [0, 7], [3, 8], [1, 9]]
  ended = decoding.with_users(x, likely, step, np.array([True, False, True]), most, rng)
  np.testing.assert_array_equal(ended, x)
