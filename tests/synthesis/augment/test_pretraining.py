"""Pre-training on graphs alone: the graphs, the tasks, and training from the result."""

import math

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tests.helpers import gpu_kernels
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank.data import splits
from tpugraphs_rank.synthesis.augment import pretraining
from tpugraphs_rank.training import runtime
from tpugraphs_rank.training import trainer

ALL = pretraining.Settings(objectives=pretraining.OBJECTIVES, steps=40, batch_size=4,
                           learning_rate=0.02, held_out=0.25)


@pytest.fixture(scope="module", name="config")
def _config(tmp_path_factory):
  path = small_runs.collection(tmp_path_factory.mktemp("real"))
  synthetic = small_runs.collection(tmp_path_factory.mktemp("synthetic"))
  return small_runs.settings(
      path, model_hidden_width=16, model_num_convolutions=2, data_max_graphs=2,
      augment_synthetic=str(synthetic), augment_synthetic_held_back="content", training_epochs=1)


def test_only_runtimes_of_the_budget_are_used(config):
  free = pretraining.graphs_of(config, labelled=False)
  assert (len(free.real), len(free.synthetic)) == (4, 4)
  assert all(math.isnan(one.label) for one in free.real + free.synthetic)
  known = pretraining.graphs_of(config, labelled=True)
  assert (len(known.real), len(known.synthetic)) == (2, 4)
  programs = splits.load(config.data, "train", config.training.seed, 6).programs
  assert [one.label for one in known.real] == [
      pytest.approx(math.log((program.graph.config_runtime
                              / program.graph.config_runtime_normalizers).mean()))
      for program in programs]
  alone = config_lib.override(config, {"augment.synthetic": None})
  assert not pretraining.graphs_of(alone, labelled=False).synthetic


@pytest.mark.slow
def test_the_tasks_are_learned_and_training_starts_from_the_result(config, tmp_path):
  report = pretraining.pretrain(config, ALL, tmp_path / "first")
  assert report["loss"] < 0.7 * report["first_loss"]
  assert (report["steps"], report["real_graphs"], report["synthetic_graphs"]) == (40, 2, 3)
  assert set(report["held_out"]) <= set(pretraining.OBJECTIVES)
  assert 0 <= report["held_out"]["opcode"]["accuracy"] <= 1
  runtime.configure(config.training.seed, 1)
  again = pretraining.Pretrainer(config, ALL, pretraining.graphs_of(config, labelled=True))
  variables = again.model.trainable_variables
  fresh = [variable.numpy() for variable in variables]
  # Repeating it gives the same weights.
  assert again.train() == report
  if gpu_kernels.has_gpu_kernels():
    assert not gpu_kernels.ops_without_gpu_kernels(again._step.get_concrete_function())
  training = trainer.Trainer(config_lib.override(config, {
      "augment.synthetic": None, "training.initial_checkpoint": str(tmp_path / "first")}))
  trained = training.stepper.model.trainable_variables
  for variable, other in zip(trained, variables, strict=True):
    np.testing.assert_array_equal(variable, other)
  moved = {variable.name for variable, other in zip(trained, fresh)
           if not np.array_equal(variable, other)}
  # The tasks change the layers that they use, and no layers for configurations.
  assert any("convolution" in name for name in moved) and any("opcodes" in name for name in moved)
  assert not any("score" in name or "configs" in name for name in moved)


def _gradients(config):
  """Whether each variable of the model has a gradient in the first step; not traced."""
  pretrainer = pretraining.Pretrainer(
      config, pretraining.Settings(objectives=pretraining.OBJECTIVES, steps=1, batch_size=4),
      pretraining.graphs_of(config, labelled=True))
  variables = pretrainer.model.trainable_variables
  with tf.GradientTape() as tape:
    loss = tf.add_n([heads.loss(arrays) for arrays in map(pretrainer._scaled, pretrainer._lists())
                     for heads in pretrainer._heads])
  assert math.isfinite(float(loss))
  return {f"{place} {variable.name}": gradient is not None for place, (variable, gradient)
          in enumerate(zip(variables, tape.gradient(loss, variables)))}


@pytest.mark.parametrize("changes", [
    {"model_members": 2}, {"model_model": "attention_gnn"}, {"model_join": "late"},
    {"model_residual": "concat", "model_pooling": ["max", "sum"]}])
def test_every_variable_has_a_gradient(config, changes):
  reached = _gradients(config_lib.override(config, {
      name.replace("_", ".", 1): value for name, value in changes.items()}))
  assert all(value for name, value in reached.items()
             if "convolution" in name or "opcodes" in name or "nodes" in name)
  assert not any(value for name, value in reached.items() if "score" in name)


def test_layouts(tmp_path):
  reached = _gradients(small_runs.settings(
      small_runs.collection(tmp_path, "layout"), batch_segment_mode="backprop", batch_max_nodes=4))
  assert all(value for name, value in reached.items() if "convolution" in name)


def test_losses_equal_their_formulas():
  """With heads that return fixed outputs."""
  answers = {"opcode": tf.constant([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]]),
             "edges": tf.constant([0.5, -1.0]), "label": tf.constant([1.0, 5.0, 2.0])}
  arrays = {"masked_opcode": tf.constant([1, 2]), "pair_is_edge": tf.constant([1.0, 0.0]),
            "label": tf.constant([0.0, float("nan"), 4.0])}

  class Fixed(pretraining._Heads):
    def __call__(self, arrays):
      return answers

  heads = Fixed.__new__(Fixed)
  opcode = (-1 + math.log(2 + math.e) + math.log(math.exp(2) + 2)) / 2
  edges = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(-1.0))) / 2
  label = (1.0 + 4.0) / 2
  assert float(heads.loss(arrays)) == pytest.approx(opcode + edges + label)


def test_objectives_are_required(config, tmp_path):
  with pytest.raises(errors.ConfigError, match="has no objectives; expected some of: opcode"):
    pretraining.pretrain(config, pretraining.Settings(objectives=()), tmp_path)


def test_a_program_without_runtimes_has_no_label():
  graph = small_runs.synthetic.tile_graph(0, config_runtime=np.zeros(12, np.int64))
  with pytest.raises(errors.DataError, match="has no runtimes; a graph's label"):
    pretraining.label_of(splits.ProgramView(graph))
