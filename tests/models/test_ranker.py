"""The rankers against a slow second implementation, and what must not change their scores."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tests import synthetic
from tests.data import changed
from tests.models import reference
from tests.models import small_batches
from tpugraphs_rank import errors
from tpugraphs_rank import models
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.models import plain_states

KINDS = ("tile", "layout")
MODELS = ("residual_gnn", "attention_gnn")


@pytest.fixture(scope="module", params=[(model, kind) for model in MODELS for kind in KINDS],
                ids=lambda param: "-".join(param))
def both(request):
  """Each model on each kind of graph."""
  model, kind = request.param
  return small_batches.Case(kind, model_model=model)


# ---- against the second implementation -----------------------------------------------------------

VARIATIONS = [
    {},
    {"model_activation": "relu", "model_aggregation": "symmetric"},
    {"model_activation": "tanh", "model_aggregation": "sum", "model_residual": "concat"},
    {"model_activation": "gelu", "model_residual": "none", "model_mlp_layers": 2,
     "model_aggregation": "max"},
    {"model_directions": "operands", "model_aggregation": "symmetric", "model_layer_norm": True},
    {"model_directions": "users", "model_residual": "concat", "model_num_convolutions": 3},
    {"model_num_convolutions": 0, "model_pooling": ["max"], "model_head_widths": []},
    {"model_pooling": ["sum", "max", "mean"], "model_pool_l2": False, "model_head_widths": [4, 3]},
]
JOINS = [("residual_gnn", "late"), ("residual_gnn", "both"), ("attention_gnn", "both")]
CASES = [(kind, model, changes) for kind in KINDS for model in MODELS for changes in VARIATIONS] + [
    ("tile", model, {"model_join": join, "model_aggregation": "symmetric"})
    for model, join in JOINS] + [
        ("layout", model, {"model_layout_join": "sized", "model_layout_features": features})
        for model, features in zip(MODELS, ("entries", "digits"))] + [
            ("layout", MODELS[0], {"model_layout_extents": True, "model_layout_scale": 3.0})] + [
            ("layout", model, {"model_layout_costs": costs})
            for model, costs in zip([*MODELS, MODELS[0]], ("totals", "requests", "both"))]


@pytest.mark.parametrize("kind, model, changes", CASES)
def test_the_forward_pass_is_that_of_the_second_implementation(kind, model, changes):
  case = small_batches.Case(kind, sizes=(6, 3), configs=(5, 3), model_model=model, **changes)
  slow = reference.Reference(case.model, case.config.model)
  # With a reference list, as in scoring.
  prepared = case.prepared()
  for member, actual in zip(prepared, case.scores(prepared, max_configs=4)):
    first = batches.reference_list(member, case.model.reference_size) if (
        case.model.reference_size) else ()
    small_batches.close(actual, slow.scores(member, range(member.graph.num_configs), first))
  # Without, as in training: the list itself is what attention looks at.
  batch = batches.training_batch(prepared, case.config.batch, np.random.default_rng(0))
  for row, member, actual in zip(range(2), prepared, case.forward(batch)):
    listed = _picked(batch, row, member)
    small_batches.close(actual[:len(listed)], slow.scores(member, listed))


def _picked(batch, row, member):
  """The configurations of a batch's list, recognised by their labels or their features."""
  count = int(batch["config_mask"][row].sum())
  if member.graph.kind == "tile":
    rows = batch["configs"][row, :count]
  else:
    start = int(batch["num_config_nodes"][:row].sum())
    rows = batch["configs"][start:start + batch["num_config_nodes"][row], :count].swapaxes(0, 1)
  candidates = member.configs(np.arange(member.graph.num_configs))
  return [int(np.flatnonzero([np.array_equal(candidate, wanted) for candidate in candidates])[0])
          for wanted in rows]


def test_late_joining_needs_the_configuration_nowhere_else():
  config = small_batches.settings(model_model="attention_gnn", model_join="late")
  with pytest.raises(errors.ConfigError, match="model.join = 'late' .*choose join = 'early'"):
    models.build_model("tile", config)
  # Layouts always join at the configurable nodes.
  models.build_model("layout", config)


def test_the_configuration_matters(both):
  for scores in both.scores(both.prepared()):
    assert np.ptp(scores) > 1e-3


# ---- what must not matter ------------------------------------------------------------------------

FEW = settings(max_examples=5)


@FEW
@given(data=st.data())
def test_permuted_configurations_have_permuted_scores(both, data):
  expected = both.scores(both.prepared())
  orders = [data.draw(st.permutations(range(len(scores)))) for scores in expected]
  moved = [both.prepare(changed.with_configs(graph, order))
           for graph, order in zip(both.graphs, orders)]
  for actual, scores, order in zip(both.scores(moved), expected, orders):
    small_batches.close(actual, scores[order])


@FEW
@given(data=st.data())
def test_the_names_of_nodes_and_the_order_of_edges_do_not_matter(both, data):
  moved = [both.prepare(changed.relabelled(
      graph, data.draw(st.permutations(range(graph.num_nodes))))) for graph in both.graphs]
  for actual, expected in zip(both.scores(moved), both.scores(both.prepared())):
    small_batches.close(actual, expected)


def test_a_batch_of_graphs_is_the_graphs_one_by_one(both):
  prepared = both.prepared()
  together = both.scores(prepared)
  for member, scores in zip(prepared, together):
    (alone,) = both.scores([member])
    small_batches.close(scores, alone)
  for actual, expected in zip(both.scores(prepared[::-1], max_lists=2), together[::-1]):
    small_batches.close(actual, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_list_is_scored_the_same_however_it_is_cut(both, size):
  prepared = both.prepared()
  for actual, expected in zip(both.scores(prepared, max_configs=size), both.scores(prepared)):
    small_batches.close(actual, expected)


def test_repeats_of_configurations_change_no_score(both):
  for graph, member in zip(both.graphs, both.prepared()):
    rows = [*range(graph.num_configs), 0, 0, graph.num_configs - 1]
    (expected,) = both.scores([member])
    (actual,) = both.scores([both.prepare(changed.with_configs(graph, rows))])
    small_batches.close(actual, expected[rows])


def test_padding_changes_no_score(both):
  batch = batches.training_batch(both.prepared(), both.config.batch, np.random.default_rng(0))
  expected = both.forward(batch)
  mask = batch["config_mask"]
  assert not mask.all()  # There is padding.
  # Neither the content nor the amount of padding matters.
  wider = {key: _widened(key, value, both.kind, mask) for key, value in batch.items()}
  actual = both.forward(wider)
  for row in range(len(mask)):
    small_batches.close(actual[row, :mask[row].sum()], expected[row, :mask[row].sum()])


def _widened(key, value, kind, mask):
  if key == "config_mask":
    return np.pad(value, [(0, 0), (0, 3)])
  if key.startswith("label_"):
    return np.pad(value, [(0, 0), (0, 3)])
  if key != "configs":
    return value
  value = np.pad(value, [(0, 0), (0, 3), (0, 0)])
  if kind == "tile":
    value[~np.pad(mask, [(0, 0), (0, 3)])] = 2.0
  return value


def test_the_graph_matters_and_each_kind_of_edge(both):
  graph = both.graphs[2]
  (expected,) = both.scores([both.prepare(graph)])
  arrays = graph.arrays()
  arrays["edge_index"] = arrays["edge_index"][:, ::-1]
  cut = graphs.graph_from_arrays("g", arrays)
  (actual,) = both.scores([both.prepare(cut)])
  assert np.abs(actual - expected).max() > 1e-3


# ---- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_attention_makes_scores_depend_on_the_list_in_training(kind):
  case = small_batches.Case(kind, model_model="attention_gnn", batch_max_configs=4)
  member = case.prepared()[2]
  slow = reference.Reference(case.model, case.config.model)
  alone, together = slow.scores(member, [0]), slow.scores(member, [0, 1, 2])
  assert abs(alone[0] - together[0]) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_list_has_at_most_the_requested_length_and_covers_the_graph(kind):
  case = small_batches.Case(kind, model_model="attention_gnn")
  assert case.model.reference_size == 4
  choice = np.array([1, 2, 5])
  part, whole = case.prepare(case.graphs[2], choice=choice), case.prepare(case.graphs[2])
  assert len(batches.reference_list(part, 2)) == 2
  np.testing.assert_array_equal(
      batches.reference_list(part, 4), batches.reference_list(whole, 4))
  # The score of a configuration does not depend on which others are scored.
  small_batches.close(case.scores([part])[0], case.scores([whole])[0][choice])
  assert small_batches.Case(kind).model.reference_size == 0


# ---- no copies of node features ------------------------------------------------------------------


class _Sizes:
  """Records the sizes of all tensors that operations return inside its `with` block."""

  def __enter__(self):
    from tensorflow.python.framework import op_callbacks  # pylint: disable=import-outside-toplevel
    self._callbacks = op_callbacks
    self.largest = 0
    op_callbacks.add_op_callback(self._note)
    return self

  def _note(self, op_type, inputs, attrs, outputs, op_name=None, graph=None):
    del op_type, inputs, attrs, op_name, graph
    for output in outputs:
      if output.shape.is_fully_defined():
        self.largest = max(self.largest, output.shape.num_elements())

  def __exit__(self, *_):
    self._callbacks.remove_op_callback(self._note)


@pytest.mark.parametrize("kind, model, join", [
    ("tile", "residual_gnn", "early"), ("tile", "residual_gnn", "both"),
    ("tile", "attention_gnn", "early"), ("layout", "residual_gnn", "early"),
    ("layout", "attention_gnn", "early")])
def test_node_features_are_not_copied_for_every_configuration(kind, model, join):
  nodes, configs, width = 120, 30, 4
  arrays = small_batches.MAKERS[kind](0, num_nodes=nodes, num_configs=configs).arrays()
  arrays["node_feat"] = np.random.default_rng(0).integers(0, 99, [nodes, 140])  # All columns vary.
  case = small_batches.Case(
      kind, members=[graphs.graph_from_arrays("g", arrays)], model_model=model, model_join=join,
      model_hidden_width=width, batch_max_configs=configs)
  member = case.prepared()[0]
  assert member.nodes.shape == (nodes, 140)
  batch = batches.training_batch([member], case.config.batch, np.random.default_rng(0))
  step = pipeline.to_step(batch)
  with _Sizes() as sizes:
    with tf.GradientTape() as tape:
      total = tf.reduce_sum(case.model(step))
    tape.gradient(total, case.model.trainable_variables)
  hidden = nodes * configs * width
  categories = 3 * configs * 18 * 7 if kind == "layout" else 0
  attention = nodes * configs * configs if model == "attention_gnn" else 0
  assert hidden <= sizes.largest <= max(2 * hidden, nodes * 150, categories, attention)
  assert sizes.largest < nodes * configs * 140 / 2


# ---- unusual graphs ------------------------------------------------------------------------------


def test_one_node_and_no_edges(both):
  graph = small_batches.MAKERS[both.kind](5, num_nodes=1, num_configs=3, **(
      {"num_config_nodes": 1} if both.kind == "layout" else {}))
  (scores,) = both.scores([both.prepare(graph)])
  assert scores.shape == (3,) and np.isfinite(scores).all()


def test_layouts_without_configurable_nodes_in_a_batch_with_others():
  case = small_batches.Case("layout")
  fixed = synthetic.layout_graph(7, num_configs=3, node_config_ids=np.zeros([0], np.int64),
                                 node_config_feat=np.zeros([3, 0, 18], np.float32))
  alone, together = case.scores([case.prepare(fixed)]), case.scores(
      [case.prepare(fixed), *case.prepared()])
  small_batches.close(together[0], alone[0])
  assert np.ptp(alone[0]) < 1e-6  # Its configurations do not differ.


def test_opcodes_up_to_the_last_are_embedded():
  case = small_batches.Case("tile")
  arrays = case.graphs[0].arrays()
  arrays["node_opcode"] = np.full_like(arrays["node_opcode"], 127)
  (scores,) = case.scores([case.prepare(graphs.graph_from_arrays("g", arrays))])
  assert np.isfinite(scores).all()


@pytest.mark.parametrize("changes", [
    {}, {"model_residual": "concat", "model_pooling": ["sum", "max"]}, {"model_layer_norm": True}])
def test_nodes_without_configurations_are_those_under_the_mean_configuration(changes):
  """Tiles whose scaled numbers are all 0, joined early, add nothing to the nodes."""
  case = small_batches.Case("tile", **changes)
  batch, _ = next(batches.scoring_batches(case.prepared(), 3, 0))
  batch["configs"] = np.zeros_like(batch["configs"])
  graph = pipeline.graph_tensor(batch)
  hidden = case.model.node_states(graph)
  view = plain_states.PlainView(graph, case.config.model.aggregation)
  (under,) = view.embed(lambda states: case.model._embed(states, None, split=False))
  small_batches.close(under.numpy(), np.repeat(hidden.numpy()[:, None], 3, axis=1))
  scores = case.model._score(case.model._head(case.model.graph_states(graph, hidden)))
  small_batches.close(case.forward(batch), np.repeat(scores.numpy(), 3, axis=1))


def test_attention_without_configurations_is_that_of_one(both):
  """With a single configuration, attention looks at that alone."""
  batch, _ = next(batches.scoring_batches(both.prepared(), 1, 0))
  graph = pipeline.graph_tensor(batch)
  kernel = both.model._config_projection.kernel
  kept = kernel.numpy()
  kernel.assign(np.zeros_like(kept))
  try:
    hidden = both.model.node_states(graph)
    scores = both.model._score(both.model._head(both.model.graph_states(graph, hidden)))
    small_batches.close(both.model({"graph": graph}).numpy(), scores.numpy())
  finally:
    kernel.assign(kept)
