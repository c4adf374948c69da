"""The interface: a plain model is correct everywhere, and fast paths equal the plain path."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import registrations
from tests.models import small_batches
from tpugraphs_rank import errors
from tpugraphs_rank import models
from tpugraphs_rank import registries
from tpugraphs_rank.data import batches
from tpugraphs_rank.models import inputs
from tpugraphs_rank.models import poolings
from tpugraphs_rank.training import scoring
from tpugraphs_rank.training import streaming


class PlainModel(models.RankingModel):
  """A small message-passing model that reads everything through the interface."""

  def __init__(self, kind, settings, l2=0.0):
    super().__init__(kind, settings, l2)
    dense = tf.keras.layers.Dense
    self.nodes, self.configs = dense(4), dense(4, use_bias=False)
    self.messages, self.score = dense(4, activation="tanh"), dense(1)

  def required_inputs(self):
    return ("nodes", "source", "target", "graph_of_node", "num_nodes", "config_features",
            "config_targets")

  def call(self, batch):
    hidden = models.add_configs(self.nodes(batch["nodes"]),
                                self.configs(batch["config_features"]), batch["config_targets"])
    hidden += self.messages(models.neighbour_mean(hidden, batch["source"], batch["target"]))
    if "dropout_seed" in batch:
      hidden = tf.nn.experimental.stateless_dropout(hidden, 0.5, seed=batch["dropout_seed"])
    pooled = poolings.get("sum")(hidden, batch["graph_of_node"], tf.shape(batch["num_nodes"])[0])
    return tf.squeeze(self.score(pooled), axis=-1)


def _rms(states, graph, graphs):
  return tf.sqrt(tf.math.unsorted_segment_mean(tf.square(states), graph, graphs) + 1e-12)


@pytest.fixture(scope="module", autouse=True)
def _registered():
  with registrations.undone():
    models.register("plain", PlainModel)
    yield


def _plain(model, batch):
  """The scores [B, C] of the plain path of any model."""
  return model(inputs.select(batch, model.required_inputs())).numpy()


def _case(name, kind, **changes):
  return small_batches.Case(kind, sizes=(25, 4, 40), configs=(6, 5, 7), model_model=name, **changes)


@pytest.mark.parametrize("name, kind, members", [
    *((name, "tile", 1) for name in (*registries.MODELS.names(), "plain")),
    ("residual_gnn", "layout", 2), ("plain", "layout", 2),
    *(pytest.param(name, "layout", 2, marks=pytest.mark.slow)
      for name in registries.MODELS.names() if name != "residual_gnn")])
def test_every_way_of_scoring_equals_the_plain_path(name, kind, members):
  case = _case(name, kind, model_members=members, batch_eval_batch_configs=3)
  model, prepared = case.model, case.prepared()
  ((batch, rows),) = batches.scoring_batches(prepared, 100, model.reference_size)
  expected = _plain(model, batch)
  actual = np.mean([scores.numpy() for scores in model.member_scores(model.arrange(batch))], axis=0)
  small_batches.close(actual, expected)
  scores = scoring.Scorer(model, case.config)(prepared)  # In short lists.
  for row, (index, picked) in zip(expected, rows):
    small_batches.close(scores[index], row[:len(picked)])
  if kind == "layout" and model.supports_partition:
    for distinct in {False, model.supports_distinct_states}:
      for row, member in zip(expected, prepared):
        small_batches.close(streaming.Streamer(model, 2 ** 20, distinct)(member),
                            row[:len(member.choice)])


@pytest.mark.parametrize("kind", ["tile", "layout"])
def test_a_plain_model_claims_no_capability(kind):
  for members in (1, 2):
    model = _case("plain", kind, model_members=members).model
    assert not (model.supports_segments or model.supports_partition
                or model.supports_distinct_states or model.reference_size)
    assert len(model.members) == members
    ((batch, _),) = batches.scoring_batches(_case("plain", kind).prepared(), 100, 0)
    assert model.arrange(batch) is batch


def test_dropout_differs_between_members_and_depends_on_the_seed():
  case = _case("plain", "tile", model_members=2)
  ((batch, _),) = batches.scoring_batches(case.prepared(), 100, 0)
  for member in case.model.members[1:]:
    for variable, value in zip(member.trainable_variables,
                               case.model.members[0].trainable_variables):
      variable.assign(value)
  first, second = case.model.member_scores(batch, True, tf.constant([1, 2]))
  again, _ = case.model.member_scores(batch, True, tf.constant([1, 2]))
  other, _ = case.model.member_scores(batch, True, tf.constant([1, 3]))
  np.testing.assert_array_equal(first, again)
  assert not np.allclose(first, second) and not np.allclose(first, other)


@pytest.mark.parametrize("kind", ["tile", "layout"])
def test_every_input_has_its_documented_shape(kind):
  case = small_batches.Case(kind, model_layout_costs="totals")
  ((batch, _),) = batches.scoring_batches(case.prepared(), 100, 2)
  sizes = {"N": len(batch["nodes"]), "M": len(batch["source"]), "B": len(batch["num_nodes"]),
           "F": batch["nodes"].shape[1], "C": batch["config_mask"].shape[1],
           "R": batch["reference_mask"].shape[1], "T": batch["configs"].shape[1]}
  sizes["P"] = sizes["N"]
  if kind == "layout":
    sizes["NC"] = sizes["P"] = len(batch["config_nodes"])
    sizes["K"] = batch["config_costs"].shape[2]
  else:
    sizes["K"] = batch["configs"].shape[2]
  assert sizes["T"] == sizes["R"] + sizes["C"]
  for name, text in inputs.INPUTS.items():
    if name == "graph" or (name in ("config_sizes", "config_costs") and kind == "tile"):
      continue
    shape = text.partition(f"{kind}: (")[2] or text.partition("(")[2]
    expected = [sizes[size] if size in sizes else int(size)
                for size in shape.partition(")")[0].replace(" ", "").split(",") if size]
    assert inputs.select(batch, [name])[name].shape == expected, name


def test_wrong_models_are_refused():
  class Nameless(PlainModel):
    def required_inputs(self):
      return ("node",)

  class OneString(PlainModel):
    def required_inputs(self):
      return "nodes"

  class Silent(models.RankingModel):
    def required_inputs(self):
      return ("nodes",)

  class Narrow(PlainModel):
    def call(self, batch):
      return super().call(batch)[:, :1]

  class Counting(PlainModel):
    def __init__(self, *arguments):
      super().__init__(*arguments)
      self.counter = tf.Variable(0.0, trainable=False)

  for name, model in (("nameless", Nameless), ("narrow", Narrow), ("counting", Counting),
                      ("one_string", OneString), ("silent", Silent),
                      ("no_arguments", lambda: None), ("no_model", lambda *arguments: None)):
    models.register(name, model)
  config = lambda name, **changes: small_batches.settings(model_model=name, **changes)
  with pytest.raises(errors.UnknownNameError, match="unknown model input 'node'.*: nodes, "):
    models.build_model("tile", config("nameless"))
  with pytest.raises(errors.ConfigError, match="returns 'nodes'; expected a list or tuple"):
    models.build_model("tile", config("one_string"))
  with pytest.raises(errors.ConfigError, match="'silent' lacks the method call; Silent must"):
    models.build_model("tile", config("silent"))
  with pytest.raises(errors.ConfigError, match="'no_arguments' cannot be called: .* arguments"):
    models.build_model("tile", config("no_arguments"))
  with pytest.raises(errors.ConfigError, match="expected a class derived from"):
    models.build_model("tile", config("no_model"))
  with pytest.raises(errors.ConfigError, match="'plain' cannot limit gradients"):
    models.build_model("tile", config("plain", batch_segment_mode="backprop"))
  with pytest.raises(errors.ConfigError, match="takes none"):
    models.build_model("tile", config("residual_gnn", model_model_options={"rounds": 3}))
  case = _case("plain", "tile")
  ((batch, _),) = batches.scoring_batches(case.prepared(), 100, 0)
  with pytest.raises(errors.ConfigError, match=r"scores of shape \(3, 1\); expected \(3, 7\)"):
    models.build_model("tile", config("narrow")).create_variables(batch)
  with pytest.raises(errors.ConfigError, match="not trainable"):
    models.build_model("tile", config("counting")).create_variables(batch)


@pytest.mark.parametrize(("call", "message"), [
    (lambda model, batch: None, "returns scores of type NoneType; expected a float32 tensor"),
    (lambda model, batch: tf.ones([3, 7], tf.int32), "type int32; expected a float32 tensor"),
    (lambda model, batch: batch["opcode"], r"fails: KeyError: opcode \(.*test_interface.py:\d+\); "
     "add 'opcode' to what required_inputs returns"),
    (lambda model, batch: 1 // 0, r"fails: ZeroDivisionError: .* \(.*test_interface.py:\d+\)$"),
])
def test_a_model_that_fails_is_named_with_its_line(call, message):
  class Failing(PlainModel):
    def call(self, batch):
      return call(self, batch)

  models.register("failing", Failing, replace=True)
  case = _case("plain", "tile")
  ((batch, _),) = batches.scoring_batches(case.prepared(), 100, 0)
  model = models.build_model("tile", small_batches.settings(model_model="failing"))
  with pytest.raises(errors.ConfigError, match=f"the model 'failing' .*{message}"):
    model.create_variables(batch)


def test_settings_of_a_custom_model_are_hashed_and_passed_on():
  config = small_batches.settings(model_model="plain", model_model_options={"rounds": 3})
  assert models.build_model("tile", config).settings.model_options == {"rounds": 3}
  assert dataclasses.replace(config.model, model_options={}) != config.model


@pytest.mark.parametrize("kind", ["tile", "layout"])
def test_a_registered_pooling_is_the_same_on_every_path(kind):
  poolings.register("rms", _rms)
  case = _case("residual_gnn", kind, model_pooling=["mean", "rms", "max"])
  assert not case.model.supports_distinct_states
  batch = batches.training_batch(case.prepared(), case.config.batch, np.random.default_rng(0))
  small_batches.close(case.forward(batch), _plain(case.model, batch))
  if kind == "layout":
    member = case.prepared()[2]
    ((batch, _),) = batches.scoring_batches([member], 100, 0)
    small_batches.close(streaming.Streamer(case.model, 2 ** 20)(member),
                        _plain(case.model, batch)[0])
