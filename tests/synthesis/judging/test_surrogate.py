"""The surrogate: learning, invariances, early stopping and errors."""

import dataclasses

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import counts as counts_lib
from tpugraphs_rank.synthesis.judging import forest as forest_lib
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib

pytestmark = pytest.mark.usefixtures("small_forests")

SMALL = surrogate_lib.Options(layers=2, width=16, max_epochs=80, patience=80, batch_size=32,
                              learning_rate=5e-3, forest=False)


@pytest.fixture(scope="module")
def trained():
  return surrogate_lib.train(small_dags.graphs(120, 0), small_dags.graphs(30, 1), 0, options=SMALL)


def test_it_learns_labels_that_depend_on_the_structure(trained):
  test = small_dags.graphs(60, 2)
  predicted = trained.predict(test)
  assert metrics.pearson(test.label(), predicted) > 0.9
  # Predictions are in the unit of the labels, not standardized.
  assert metrics.mean_absolute_error(test.label(), predicted) < 0.3 * test.label().std()
  assert 1 <= trained.epoch <= trained.epochs <= 80 and trained.valid_pearson > 0.9


def test_epochs_with_a_fixed_number_of_steps_continue_the_permutation():
  graphs, valid, test = small_dags.graphs(40, 0), small_dags.graphs(20, 1), small_dags.graphs(20, 2)
  predict = lambda **changes: surrogate_lib.train(
      graphs, valid, 0, options=dataclasses.replace(SMALL, patience=9, **changes)).predict(test)
  np.testing.assert_array_equal(predict(max_epochs=1), predict(max_epochs=1, steps_per_epoch=2))
  drawn = surrogate_lib._rounds(5, 2, 3)
  rounds = [np.concatenate([next(drawn) for _ in range(3)]) for _ in range(2)]
  assert all(sorted(rows.tolist()) == list(range(5)) for rows in rounds)
  assert rounds[0].tolist() != rounds[1].tolist()


def test_the_same_seed_gives_the_same_surrogate():
  options = dataclasses.replace(SMALL, max_epochs=3)
  graphs, test = small_dags.graphs(40, 0), small_dags.graphs(20, 2)
  one, same, other = (surrogate_lib.train(graphs, small_dags.graphs(20, 1), seed, options=options
                                          ).predict(test) for seed in (0, 0, 1))
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 1e-3


def test_predictions_do_not_depend_on_node_order_or_batch(trained):
  test = small_dags.graphs(20, 2)
  alone = trained.predict(test)
  order = np.random.default_rng(0).permutation(20)
  again = test.take(np.concatenate([order, order]))
  np.testing.assert_allclose(trained.predict(again), np.tile(alone[order], 2), rtol=1e-4)
  # Permute the nodes within levels, and the indices of the kinds.
  moved = []
  for graph in range(20):
    level = test.level[test.nodes(graph)]
    places = np.lexsort((np.random.default_rng(graph).random(len(level)), level))
    back = np.empty_like(places)
    back[places] = np.arange(len(places))
    moved.append((back[test.edges(graph)], test.x[test.nodes(graph), 0][places]))
  other = dags_lib.canonical(moved, vocabularies=[np.arange(4)]).in_vocabularies(
      [np.array([3, 9, 2, 1, 0])])
  np.testing.assert_allclose(trained.predict(other), alone, rtol=1e-4)


def test_many_graphs_are_predicted_in_batches(trained, monkeypatch):
  test = small_dags.graphs(30, 2)
  whole = trained.predict(test)
  monkeypatch.setattr(surrogate_lib, "_NODES", 25)
  np.testing.assert_allclose(trained.predict(test), whole, rtol=1e-4)


def test_unknown_attribute_values_are_ignored(trained):
  test = small_dags.graphs(5, 2)
  unknown = dataclasses.replace(test, x=np.zeros_like(test.x), vocabularies=[np.array([77])])
  other = dataclasses.replace(unknown, vocabularies=[np.array([88])])
  np.testing.assert_array_equal(trained.predict(unknown), trained.predict(other))
  assert np.isfinite(trained.predict(unknown)).all()


def test_predictions_are_labels_when_logarithms_are_learned():
  raise_ = lambda dags: dags.with_labels(np.exp(3 * dags.label()), ["cost", ])
  surrogate = surrogate_lib.train(
      raise_(small_dags.graphs(120, 0)), raise_(small_dags.graphs(30, 1)), 0, "cost",
      dataclasses.replace(SMALL, log_labels=True))
  test = raise_(small_dags.graphs(60, 2))
  assert metrics.pearson(np.log(test.label()), np.log(surrogate.predict(test))) > 0.9
  assert np.median(surrogate.predict(test) / test.label()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("log_labels", [False, True])
def test_the_prediction_is_the_mean_of_networks_and_forest(log_labels):
  graphs, valid, test = (small_dags.graphs(count, seed) for count, seed in (
      (40, 0), (20, 1), (20, 2)))
  options = dataclasses.replace(SMALL, max_epochs=2, log_labels=log_labels)
  networks, both = (surrogate_lib.train(graphs, valid, 3, None, dataclasses.replace(
      options, forest=forest)) for forest in (False, True))
  scale = np.log if log_labels else lambda labels: labels
  labels = scale(graphs.label())
  # A forest of labels in another unit may break ties in another way.
  targets = graphs.with_labels((labels - labels.mean()) / labels.std(), ["runtime"])
  forest = forest_lib.train(targets, valid, 3).predict(test) * labels.std() + labels.mean()
  np.testing.assert_allclose(scale(both.predict(test)),
                             (scale(networks.predict(test)) + forest) / 2, rtol=1e-5)
  assert both.details == networks.details


def test_it_stops_when_validation_does_not_improve():
  rng = np.random.default_rng(0)
  valid = small_dags.graphs(30, 1)
  valid = valid.with_labels(rng.permutation(valid.label()), valid.y_names)
  surrogate = surrogate_lib.train(small_dags.graphs(60, 0), valid, 0,
                                  options=dataclasses.replace(SMALL, patience=4))
  assert surrogate.epochs == surrogate.epoch + 4 < 80


def test_several_attributes():
  graphs = small_dags.graphs(30, 0)
  x = np.repeat(graphs.x, 2, axis=1)
  two = dataclasses.replace(graphs, x=x, x_names=("opcode", "type"),
                            vocabularies=[np.arange(4), np.array(["a", "b", "c", "d"])])
  surrogate = surrogate_lib.train(two, two, 0, options=dataclasses.replace(SMALL, max_epochs=2))
  assert surrogate.predict(two).shape == (30,)
  with pytest.raises(errors.DataError, match="x_names are .'opcode',.; the surrogate was trained"):
    surrogate.predict(graphs)


def test_errors():
  graphs = small_dags.graphs(10, 0)
  constant = graphs.with_labels(np.ones(10), ["runtime"])
  with pytest.raises(errors.DataError, match=r"the training graphs .* \[1.0\]; expected at"):
    surrogate_lib.train(constant, graphs, 0)
  with pytest.raises(errors.DataError, match="the validation graphs of the surrogate"):
    surrogate_lib.train(graphs, graphs.take([0]), 0)
  with pytest.raises(errors.DataError, match="no label 'cost'"):
    surrogate_lib.train(graphs, graphs, 0, "cost")
  negative = graphs.with_labels(-graphs.label(), ["runtime"])
  with pytest.raises(errors.DataError, match="expected labels above zero"):
    surrogate_lib.train(negative, graphs, 0, options=surrogate_lib.Options(log_labels=True))
  huge = dataclasses.replace(SMALL, learning_rate=1e30, max_epochs=9)
  with pytest.raises(errors.TrainingError, match="the surrogate predicts (nan|-?inf) after epoch"):
    surrogate_lib.train(graphs, graphs, 0, options=huge)


def _by_hand(network, member, graphs, graph, counts, typical_size):
  """The standardized label that one network predicts for one graph, node by node."""
  of = lambda variable: variable.numpy()[member]
  silu = lambda values: values / (1 + np.exp(-values))
  width, edges = network._width, graphs.edges(graph)
  part = slice(member * width, (member + 1) * width)
  nodes = range(graphs.sizes[graph])
  operands = [[int(dst) for src, dst in edges if src == node] for node in nodes]
  users = [[int(src) for src, dst in edges if dst == node] for node in nodes]
  mean = lambda hidden, others: sum((hidden[one] for one in others), np.zeros(width)) / max(
      len(others), 1)
  hidden = [
      network._embeddings[0].numpy()[graphs.x[graphs.nodes(graph), 0][node], part]
      + np.log1p([len(operands[node]), len(users[node])]) @ of(network._degrees)
      for node in nodes]
  for weights, bias in network._layers:
    hidden = [silu(np.concatenate([
        mean(hidden, operands[node]), mean(hidden, users[node]), hidden[node]]) @ of(weights)
        + of(bias)[0]) for node in nodes]
  pooled = np.concatenate([np.mean(hidden, axis=0), np.sum(hidden, axis=0) / typical_size])
  last = silu(pooled @ of(network._hidden) + counts @ of(network._counts)
              + of(network._hidden_bias)[0])
  return (last @ of(network._output) + of(network._output_bias)[0])[0]


@pytest.mark.parametrize("with_counts", [True, False])
def test_predictions_equal_those_computed_node_by_node(with_counts):
  graphs = small_dags.graphs(6, 0)
  assert len(np.unique(graphs.hashes())) == 6
  encoder = surrogate_lib._Encoder(graphs, with_counts)
  options = surrogate_lib.Options(members=3, layers=2, width=4, counts=with_counts)
  network = surrogate_lib._Network([4], encoder.counts_width, 7.0, options, 5)
  for variable in network.trainable_variables:  # Biases start at 0.
    variable.assign_add(0.1 * np.random.default_rng(1).normal(size=variable.shape))
  counts = np.log1p(counts_lib.Counts(graphs).of(graphs))
  counts = (counts - counts.mean(axis=0)) / np.sqrt(counts.var(axis=0) + surrogate_lib._VARIANCE)
  expected = [[_by_hand(network, member, graphs, graph, counts[graph] if with_counts else [], 7.0)
               for graph in range(6)] for member in range(3)]
  inputs = encoder.inputs(graphs)
  batch = inputs.batch(np.arange(6))
  np.testing.assert_allclose(network._predictions(*batch).numpy()[:, inputs.index], expected,
                             rtol=1e-3, atol=1e-5)
  # The surrogate's prediction is the mean of its networks.
  np.testing.assert_allclose(network.forward(*batch).numpy()[inputs.index],
                             np.mean(expected, axis=0), rtol=1e-3, atol=1e-5)


def test_networks_learn_as_if_they_were_alone():
  graphs = small_dags.graphs(12, 0)
  encoder = surrogate_lib._Encoder(graphs, True)
  options = surrogate_lib.Options(members=3, layers=1, width=4)
  networks = [surrogate_lib._Network([4], encoder.counts_width, 7.0, options, 5) for _ in range(2)]
  # In the second one, the output of the first member is far from the labels.
  networks[1]._output_bias.assign_add(np.array([5.0, 0.0, 0.0])[:, None, None])
  inputs = encoder.inputs(graphs)
  targets = graphs.label().astype(np.float32)
  for network in networks:
    for _ in range(3):
      network.step(*inputs.batch(np.arange(inputs.count)), inputs.index, targets)
  one, other = (network._predictions(*inputs.batch(np.arange(inputs.count))).numpy()
                for network in networks)
  np.testing.assert_allclose(one[1:], other[1:], rtol=1e-4, atol=1e-5)
  assert np.abs(one[0] - other[0]).max() > 1
