"""Training steps of LayerDAG: averaged weights, attribute dropout and condition noise."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tests.synthesis.layerdag import test_growth
from tests.synthesis.layerdag import test_model
from tpugraphs_rank.synthesis.layerdag import encoders
from tpugraphs_rank.synthesis.layerdag import fitting
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib


def _fitter(**changes):
  tf.keras.utils.set_random_seed(0)
  dags = test_growth.make(1, count=12)
  # One step per epoch.
  config = test_model.small(fit__batch_graphs=12, fit__epochs=30, fit__patience=30,
                            fit__validate_every=1, **changes)
  generator = generator_lib.Generator(config, generator_lib.Facts.of(dags, config))
  return fitting.Fitter(generator, dags, test_growth.make(2, count=4))


def _weights(variables):
  return [variable.numpy() for variable in variables]


@pytest.mark.slow
@pytest.mark.parametrize("average", [0.0, 0.99])
def test_the_averages_of_the_best_validation_are_selected(average):
  fitter = _fitter(fit__average=average, fit__learning_rate=0.05)
  variables = fitter.generator.variables
  expected = {name: _weights(of) for name, of in variables.items()}
  best, kept = {}, {}
  for step in range(1, 9):
    row = fitter.epoch()
    share = max(1 - average, 9 / (10 + step))
    for name, of in variables.items():
      learned = _weights(of)
      expected[name] = [(1 - share) * old + share * new
                        for old, new in zip(expected[name], learned)]
      if row[f"valid_{name}"] < best.get(name, np.inf):
        best[name], kept[name] = row[f"valid_{name}"], expected[name]
  fitter.keep_best()
  for name, of in variables.items():
    for actual, value in zip(_weights(of), kept[name]):
      np.testing.assert_allclose(actual, value, atol=1e-5)
  # Validation uses the averages, too.
  draws = {"sizes": 1}
  for name in variables:
    again = fitter.bounds(name, fitter._valid, fitter._valid_conditions,
                          draws.get(name, fitting._VALIDATION_DRAWS))
    assert again == pytest.approx(best[name], rel=1e-6)


def test_attributes_are_hidden_in_training_only():
  x = tf.random.stateless_uniform([4000, 2], [1, 2], 0, 5, tf.int32)
  hidden = encoders.Noise(tf.constant([3, 4])).hidden(x, 0.3).numpy()
  assert np.mean(hidden == -1) == pytest.approx(0.3, abs=0.02)
  np.testing.assert_array_equal(hidden[hidden >= 0], x.numpy()[hidden >= 0])
  assert encoders.Noise(tf.constant([3, 4])).hidden(x, 0.0) is x
  bounds = []
  for rate in (0.0, 0.9):
    fitter = _fitter(network__attribute_dropout=rate)
    bounds.append([fitter.bounds(name, fitter._valid, fitter._valid_conditions, 1)
                   for name in fitter.generator.modules])
  np.testing.assert_array_equal(*bounds)


def test_noise_is_added_to_specified_scalars_in_training():
  without, noisy = (next(_fitter(network__condition_noise=noise)._batches(1))
                   for noise in (0.0, 0.5))
  specified = without["specified"] > 0
  np.testing.assert_array_equal(without["specified"], noisy["specified"])
  moved = noisy["scalar"] - without["scalar"]
  assert (moved[~specified] == 0).all() and (moved[specified] != 0).all()
  assert 0.2 < moved[specified].std() < 0.9
  # The noise is the same at all steps of a graph.
  for graph in range(12):
    assert np.ptp(moved[without["graph"] == graph], axis=0).max() < 1e-6
  np.testing.assert_array_equal(without["target"], noisy["target"])
