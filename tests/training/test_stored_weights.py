"""Networks are not built larger than the weights that are stored for them."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import synthetic
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.layerdag import model as model_lib
from tpugraphs_rank.training import run
from tpugraphs_rank.training import stored_weights


def test_variables_are_counted_before_they_are_created():
  with stored_weights.no_more_than([(3, 4), (4,)], "w.npz"):
    tf.keras.layers.Dense(4).build([None, 3])
  with (pytest.raises(errors.DataError, match="w.npz stores 1 arrays of weights with 4 numbers, "
                      "and the networks of its settings need more; the settings"),
        stored_weights.no_more_than([(4,)], "w.npz")):
    tf.keras.layers.Dense(10**9)(np.zeros([1, 10**6], np.float32))
  with (pytest.raises(errors.RunDirectoryError, match="need more"),
        stored_weights.no_more_than([], "w.npz", errors.RunDirectoryError)):
    for _ in range(1000):
      tf.Variable(0.0)
  with (pytest.raises(ZeroDivisionError), stored_weights.no_more_than([], "w.npz")):
    1 / 0  # noqa: B018


@pytest.mark.parametrize("changes, message", [
    ({"hidden_width": 30000}, "numbers, and the networks of its settings need more"),
    ({"members": 64, "num_convolutions": 64, "mlp_layers": 16},
     r"the networks of its settings \(64 members\) have at least 65,6\d\d; the settings and"),
    ({"members": 64}, r"\(64 members\) have at least \d+; the settings and the weights belong"),
])
def test_runs_whose_settings_ask_for_more_than_they_store(tmp_path, changes, message):
  descriptor = small_runs.collection(tmp_path / "data")
  small_runs.untrained_run(small_runs.settings(descriptor), tmp_path / "run")
  stored = json.loads((tmp_path / "run" / "config.json").read_text())
  stored["config"]["model"].update(changes)
  (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
  with pytest.raises(errors.RunDirectoryError, match=f"best.npz stores .*{message}"):
    run.load_run(tmp_path / "run").score(synthetic.tile_graph(0))


@pytest.mark.parametrize("changes", [{"width": 65536}, {"edge_width": 65536},
                                     {"encoder_layers": 16, "node_layers": 16, "width": 16384}])
def test_generators_whose_settings_ask_for_more_than_they_store(tmp_path, changes):
  with np.load(model_lib._BUNDLED) as file:
    arrays = {key: value for key, value in file.items() if "/" not in key}
  config = json.loads(str(arrays.pop("config")))
  config["network"].update(changes)
  np.savez(tmp_path / "model.npz", config=np.array(json.dumps(config)), **arrays)
  with pytest.raises(errors.DataError, match="model.npz is no LayerDAG model .*stores 0 arrays"):
    model_lib.LayerDAG.load(tmp_path / "model.npz")
