"""Predictors trained on synthetic graphs only: the protocol and its split."""

import functools

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import forest as forest_lib
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib
from tpugraphs_rank.synthesis.judging import synthetic_only

pytestmark = pytest.mark.usefixtures("small_forests")

SMALL = functools.partial(surrogate_lib.train, options=surrogate_lib.Options(
    layers=1, width=16, max_epochs=40, patience=40, batch_size=32, learning_rate=5e-3))


def _real():
  return {name: small_dags.graphs(count, seed) for name, count, seed in (
      ("train", 100, 0), ("valid", 25, 1), ("test", 50, 2))}


def test_graphs_of_the_same_distribution_are_as_good_and_shuffled_labels_useless():
  result = synthetic_only.evaluate(_real(), [small_dags.graphs(125, 3)], [4], learn=SMALL)
  assert all(len(entries) == 1 for entries in result)
  mean = lambda entries: synthetic_only.summary(entries, "pearson")["mean"]
  assert mean(result.real) > 0.8 and mean(result.synthetic) > 0.8
  # Labels depend on few features here, so that chance gives large correlations of either sign.
  assert mean(result.shuffled) < 0.5 and mean(result.requested) > 0.8
  assert result.synthetic[0].keys() == {
      "sample", "seed", "pearson", "spearman", "mae", "valid_pearson", "epoch"}
  assert [entry["seed"] for entry in result.real] == [4]


def test_forests_follow_the_same_protocol():
  sample = small_dags.graphs(125, 3)
  result = synthetic_only.evaluate(_real(), [sample], [4, 5], learn=forest_lib.train)
  mean = lambda entries: synthetic_only.summary(entries, "pearson")["mean"]
  assert mean(result.real) > 0.6 and mean(result.synthetic) > 0.6
  assert mean(result.shuffled) < 0.5 and mean(result.requested) > 0.6
  assert result.synthetic[0].keys() == {"sample", "seed", "pearson", "spearman", "mae"}
  real = forest_lib.train(_real()["train"], _real()["valid"], 5)
  assert result.real[1]["mae"] == pytest.approx(
      np.abs(real.predict(_real()["test"]) - _real()["test"].label()).mean())


def test_predictors_of_synthetic_graphs_see_no_real_graphs():
  real = _real()
  known = {value for part in real.values() for value in part.hashes().tolist()}
  trained_on = []

  class Constant:
    details = {"epoch": 1}

    def predict(self, graphs):
      return np.ones(len(graphs))

  def train(training, valid, seed, label):
    del seed, label
    trained_on.append((training, valid))
    return Constant()

  sample = small_dags.graphs(60, 3, opcodes=4, max_nodes=20)
  sample = sample.take(np.flatnonzero(~np.isin(sample.hashes(), list(known))))
  result = synthetic_only.evaluate(real, [sample, sample.take(np.arange(40))], [5],
                                   learn=train)
  assert len(trained_on) == 5
  for place, (training, valid) in enumerate(trained_on[1:]):
    of = sample.take(np.arange(len(sample) if place < 2 else 40))
    assert len(training) + len(valid) == len(of)
    assert not set(training.hashes().tolist()) & set(valid.hashes().tolist())
    assert not known & set(training.hashes().tolist() + valid.hashes().tolist())
    labels = np.concatenate([training.label(), valid.label()])
    assert sorted(labels.tolist()) == sorted(of.label().tolist())
    requested = dict(zip(of.hashes().tolist(), of.label().tolist()))
    kept = np.mean([requested[value] == label for part in (training, valid)
                    for value, label in zip(part.hashes().tolist(), part.label().tolist())])
    assert kept > 0.9 if place % 2 == 0 else kept < 0.3
  # Constant predictions count as correlation 0.
  assert [entry["pearson"] for entry in result.shuffled] == [0, 0]
  assert [entry["sample"] for entry in result.synthetic] == [0, 1]


def test_graphs_with_the_conditions_of_one_training_graph_are_on_one_side():
  training = small_dags.graphs(40, 0).take([*range(40), 0, 1])
  # Two structural twins with different labels: graphs for either label belong together.
  labels = training.label() + np.arange(42) * 10.0
  training = training.with_labels(labels, ["runtime"])
  rng = np.random.default_rng(1)
  source = rng.integers(42, size=300)
  sample = small_dags.graphs(300, 5, max_nodes=9)
  sample = sample.with_labels(
      np.stack([labels[source], training.sizes[source]], axis=1), ["runtime", "size"])
  structure = training.hashes()[source]
  for seed in range(5):
    parts = synthetic_only.split(sample, training, seed)
    assert not set(structure[parts["train"]].tolist()) & set(structure[parts["valid"]].tolist())
    hashes = {name: set(sample.hashes()[rows].tolist()) for name, rows in parts.items()}
    assert not hashes["train"] & hashes["valid"]
    # No other graph is dropped.
    left = np.setdiff1d(np.arange(300), np.concatenate(list(parts.values())))
    assert set(sample.hashes()[left].tolist()) <= hashes["train"]
    assert 0.1 < len(parts["valid"]) / 300 <= 0.25
  # Without conditions the split is by structure.
  bare = sample.with_labels(np.zeros([300, 0]), ())
  parts = synthetic_only.split(bare, training, 0)
  assert len(parts["train"]) + len(parts["valid"]) == 300


def test_the_summary_equals_its_formula():
  entries = [{"mae": value} for value in (1.0, 2.0, 4.0)]
  result = synthetic_only.summary(entries, "mae")
  mean = 7 / 3
  expected = np.sqrt(((1 - mean)**2 + (2 - mean)**2 + (4 - mean)**2) / 2)
  assert result == pytest.approx({"mean": mean, "sd": expected, "n": 3})
  assert synthetic_only.summary(entries[:1], "mae") == {"mean": 1.0, "sd": 0.0, "n": 1}
  assert synthetic_only.summary([], "mae") == {"mean": None, "sd": None, "n": 0}


def test_labels_are_required():
  real = _real()
  bare = {name: part.with_labels(np.zeros([len(part), 0]), ()) for name, part in real.items()}
  with pytest.raises(errors.DataError, match="the real graphs have no labels"):
    synthetic_only.evaluate(bare, [], [0])
  with pytest.raises(errors.DataError, match="no label 'runtime' for these graphs"):
    synthetic_only.evaluate(
        {name: part.take(np.arange(20)) for name, part in real.items()},
        [dags_lib.concat([bare["train"]])], [0],
        learn=forest_lib.train)
