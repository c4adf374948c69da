"""The surrogate: learning, invariances, early stopping and errors."""

import dataclasses

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib

SMALL = surrogate_lib.Options(layers=2, width=16, max_epochs=80, patience=80, batch_size=32,
                              learning_rate=5e-3)


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
