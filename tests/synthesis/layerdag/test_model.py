"""LayerDAG as a whole: learning, validity of samples, reproducibility, saving and loading."""

import dataclasses
import functools

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tests.helpers import gpu_kernels
from tests.synthesis.layerdag import test_growth
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.dags import views
from tpugraphs_rank.synthesis.layerdag import conditions
from tpugraphs_rank.synthesis.layerdag import fitting
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import model as model_lib
from tpugraphs_rank.synthesis.layerdag import partial_graphs
from tpugraphs_rank.synthesis.layerdag import sampler as sampler_lib
from tpugraphs_rank.synthesis.layerdag import settings


def small(**changes):
  return config_lib.override(settings.LayerDagConfig(), {
      "data.conditions": ("runtime", "size"), "network.width": 16, "network.edge_width": 8,
      "network.encoder_layers": 2, "network.node_layers": 1, "network.heads": 2,
      "network.node_steps": 6, "network.edge_steps": 6, "network.dropout": 0.0,
      "fit.epochs": 2, "fit.batch_graphs": 4, "fit.tensorboard": False,
      **{name.replace("__", "."): value for name, value in changes.items()}})


variants = pytest.mark.parametrize("direction,encoder", [
    (direction, encoder) for direction in settings.DIRECTIONS for encoder in settings.ENCODERS])
# Each direction and each encoder once.
pairs = pytest.mark.parametrize("direction,encoder", [
    ("users_first", "causal"), ("operands_first", "bidirectional")])


@functools.cache
def untrained(direction="users_first", encoder="causal", seed=0, **changes):
  """A model with random weights, and its graphs; shared, because tracing its functions is slow."""
  tf.keras.utils.set_random_seed(seed)
  dags = test_growth.make(1, count=12)
  config = small(data__direction=direction, network__encoder=encoder, **changes)
  return model_lib.LayerDAG(
      config, generator_lib.Generator(config, generator_lib.Facts.of(dags, config))), dags


@pytest.mark.parametrize("direction,encoder,operand_counts", [
    ("users_first", "causal", True), ("operands_first", "bidirectional", False),
    pytest.param("users_first", "bidirectional", False, marks=pytest.mark.slow),
    pytest.param("operands_first", "causal", True, marks=pytest.mark.slow)])
def test_sampling_and_training_compute_the_same_states(direction, encoder, operand_counts):
  # The same graphs, once as a whole and once layer by layer with cached states.
  model, dags = untrained(direction, encoder, network__operand_counts=operand_counts)
  generator = model.generator
  ordered = generator.ordered(dags.take(range(5)))
  requested = conditions.values(dags.take(range(5)), generator.facts.conditions.names)
  arrays = generator.batch([generator.unroll(graph) for graph in ordered], requested)
  tensors = {key: tf.constant(value) for key, value in arrays.items()}
  whole = {name: module.encode(tensors) for name, module in generator.modules.items()}
  sampler = sampler_lib.Sampler(generator)
  state = partial_graphs.PartialGraphs(requested, generator)
  compared = 0
  while len(state.active):
    now, states = sampler._step_inputs(state)
    rows = [np.flatnonzero(arrays["graph"] == graph)[state.layer] for graph in state.active]
    np.testing.assert_array_equal(now["counts"], arrays["counts"][rows])
    np.testing.assert_array_equal(now["progress"], arrays["progress"][rows])
    for name, (_, expected) in whole.items():
      ((_, actual),) = sampler._contexts(
          name, *states[name], {key: tf.constant(value) for key, value in now.items()})
      np.testing.assert_allclose(actual, expected.numpy()[rows], atol=2e-5)
      compared += len(rows)
    size = arrays["size"][rows]
    state.close(size)
    if not len(state.active):
      break
    new = partial_graphs.new_layer(size[size > 0], arrays["inners"][rows][size > 0])
    x, joined = [], []
    for graph in state.active:
      layer = np.flatnonzero(ordered[graph].layer == state.layer)
      mine = np.flatnonzero(state._graph == graph)
      joined.append(np.array([
          (mine[old], sum(map(len, x)) + node - layer[0])
          for old, node in zip(ordered[graph].old, ordered[graph].new) if node in layer],
          np.int64).reshape(-1, 2))
      x.append(ordered[graph].x[layer])
    x = np.concatenate(x)
    encoded = sampler._call("_encoded", state.new_rows(new["step"], x, joined), state.rounds)
    state.add(new["step"], x, joined, encoded)
  assert compared == 3 * len(arrays["size"])
  # The result equals the input up to the order of nodes.
  again = dags_lib.canonical([(graph.edges, graph.x) for graph in state.finished], dags.x_names,
                             dags.vocabularies)
  np.testing.assert_array_equal(again.wl, dags.take(range(5)).hashes())


@pytest.mark.parametrize("direction", settings.DIRECTIONS)
def test_operands_of_the_same_kind_are_counted_for_each_pair(direction):
  model, dags = untrained(direction, network__operand_counts=True)
  generator = model.generator
  arrays = generator.batch([generator.unroll(graph) for graph in generator.ordered(dags)],
                           conditions.values(dags, generator.facts.conditions.names))
  rng = np.random.default_rng(0)
  noisy = rng.integers(0, 2, len(arrays["pairs"])).astype(np.int32)
  same_kind = generator.modules["edges"]._same_kind
  counted = same_kind(
      tf.constant(noisy), {key: tf.constant(value) for key, value in arrays.items()})
  attribute = generator.facts.kinds.attribute[arrays["x"][:, 0]]
  candidate = arrays["candidate_node"][arrays["pairs"][:, 0]]
  new = arrays["pairs"][:, 1]
  user, operand = (candidate, new) if direction == "users_first" else (new, candidate)
  step = arrays["step"][new]
  tables = [table.embeddings.numpy() for table in same_kind._tables]
  for pair in rng.permutation(len(noisy))[:200]:
    others = (user == user[pair]) & (step == step[pair]) & (noisy == 1)
    others[pair] = False
    like = others & (attribute[operand] == attribute[operand[pair]])
    before = 0
    if direction == "users_first":
      held = arrays["edges"][arrays["edges"][:, 0] == user[pair], 1]
      held = held[arrays["step"][held] < step[pair]]
      before = (attribute[held] == attribute[operand[pair]]).sum()
    np.testing.assert_allclose(
        counted[pair], tables[0][before] + tables[1][like.sum()] + tables[2][others.sum()],
        atol=1e-6)


@pairs
def test_samples_of_an_untrained_model_are_valid(direction, encoder):
  model, dags = untrained(direction, encoder)
  options = sampler_lib.Options(max_nodes=400, max_layers=60)
  sampled = model.sample(12, seed=3, options=options)
  assert len(sampled) == 12
  seen = set(zip(dags.x[:, 0].tolist(), dags.num_operands.tolist()))
  assert set(zip(sampled.x[:, 0].tolist(), sampled.num_operands.tolist())) <= seen
  roots = np.bincount(sampled.graph_of_node[sampled.num_users == 0], minlength=12)
  assert (roots >= 1).all()
  if direction == "operands_first":
    assert (roots == 1).all()
  again = model.sample(12, seed=3, options=options)
  np.testing.assert_array_equal(again.x, sampled.x)
  np.testing.assert_array_equal(again.src, sampled.src)
  other = model.sample(12, seed=4, options=options)
  assert not np.array_equal(other.wl, sampled.wl)
  assert sampled.provenance["seed"] == 3 and sampled.provenance["options"]["max_nodes"] == 400


def test_graphs_keep_near_the_requested_size_and_none_is_abandoned():
  # Three times the size of the largest training graph, with random weights.
  model, dags = untrained()
  assert dags.sizes.max() < 20
  sampled = model.sample(12, {"size": 40}, seed=1)
  assert 30 <= sampled.sizes.min() and sampled.sizes.max() <= 50
  assert sampled.provenance["given_up"] == 0
  with pytest.raises(errors.ConfigError, match="size_tolerance is 1.5"):
    model.sample(1, options=sampler_lib.Options(size_tolerance=1.5))


def test_graphs_of_several_roots_keep_all_nodes(tmp_path):
  rng = np.random.default_rng(0)
  graphs = [(np.array([[1, 0], [2, 0], [3, 1]]), rng.integers(0, 3, 4)) for _ in range(6)]
  dags = dags_lib.canonical(graphs)
  config = small(data__direction="operands_first", data__conditions=("size",))
  tf.keras.utils.set_random_seed(0)
  facts = generator_lib.Facts.of(dags, config)
  assert not facts.single_root and facts.features == growth.FEATURES and facts.window == 1
  model = model_lib.LayerDAG(config, generator_lib.Generator(config, facts))
  model.save(tmp_path / "model.npz")
  loaded = model_lib.LayerDAG.load(tmp_path / "model.npz")
  assert not loaded.generator.facts.single_root and loaded.generator.facts.window == 1
  sampled = loaded.sample(8, {"size": 40}, seed=0)
  assert sampled.provenance["cut_nodes"] == 0
  assert 30 <= sampled.sizes.min() and sampled.sizes.max() <= 50


def test_every_later_node_has_an_edge_without_constraints():
  model, dags = untrained()
  sampled = model.sample(8, seed=0, options=sampler_lib.Options(
      constrained=False, max_nodes=300, max_layers=40))
  assert len(sampled) == 8
  seen = set(zip(dags.x[:, 0].tolist(), dags.num_operands.tolist()))
  assert not set(zip(sampled.x[:, 0].tolist(), sampled.num_operands.tolist())) <= seen


@pytest.mark.slow
@pytest.mark.parametrize("direction", settings.DIRECTIONS)
def test_a_model_of_one_graph_returns_that_graph(direction):
  tf.keras.utils.set_random_seed(0)
  one = test_growth.make(5, count=1, most=10)
  config = small(data__direction=direction, data__conditions=(), network__width=32,
                 network__edge_width=16, fit__epochs=200, fit__patience=200, fit__validate_every=10,
                 fit__learning_rate=5e-3, network__node_steps=24, network__edge_steps=12)
  graphs = one.take([0] * 8)
  model = model_lib.LayerDAG(config).fit(graphs, valid=graphs.take([0]))
  sampled = model.sample(20, seed=0)
  # Different nodes of a layer are sampled independently, so two of them may become equal.
  assert (sampled.hashes() == one.hashes()).mean() >= 0.5
  assert (model.elbo(one) > -2.0).all()


@variants
def test_the_order_within_a_layer_only_permutes_the_results(direction, encoder):
  model, dags = untrained(direction, encoder)
  generator = model.generator
  (graph,) = generator.ordered(dags.take([2]))
  rng = np.random.default_rng(0)
  order = np.lexsort((rng.random(len(graph.x)), graph.layer))
  place = np.argsort(order)
  moved = dataclasses.replace(
      graph, x=graph.x[order], operands=graph.operands[order],
      old=place[graph.old].astype(np.int32), new=place[graph.new].astype(np.int32))
  requested = conditions.values(dags.take([2]), generator.facts.conditions.names)
  actual = []
  for one in (graph, moved):
    arrays = generator.batch([generator.unroll(one)], requested)
    tensors = {key: tf.constant(value) for key, value in arrays.items()}
    sizes, nodes = generator.modules["sizes"], generator.modules["nodes"]
    _, context = sizes.encode(tensors)
    _, of_nodes = nodes.encode(tensors)
    time = tf.fill([len(arrays["size"])], 3)
    logits = nodes.clean(tensors["x"], time, of_nodes, tensors)
    actual.append([sizes.logits(context).numpy(), *(part.numpy() for part in logits)])
  np.testing.assert_allclose(actual[0][0], actual[1][0], atol=2e-5)
  for whole, other in zip(actual[0][1:], actual[1][1:]):
    np.testing.assert_allclose(whole[order], other, atol=2e-5)


def test_a_saved_model_is_loaded_unchanged(tmp_path):
  model, _ = untrained()
  model.save(tmp_path / "model.npz")
  loaded = model_lib.LayerDAG.load(tmp_path / "model.npz")
  assert loaded.config == model.config and loaded.hash() == model.hash()
  options = sampler_lib.Options(max_nodes=400, max_layers=60)
  np.testing.assert_array_equal(loaded.sample(4, options=options).x,
                                model.sample(4, options=options).x)


def test_damaged_shifts_of_calibration_are_refused(tmp_path):
  model, _ = untrained()
  model.save(tmp_path / "model.npz")
  with np.load(tmp_path / "model.npz") as stored:
    arrays = dict(stored)
  assert "kind_shift" not in arrays
  kinds = len(model.generator.facts.kinds)
  sound, users = np.zeros(kinds), np.zeros([kinds, 1])
  for shift, users in ((np.zeros(1), users), (sound, np.zeros([kinds, 99])),
                       (np.full(kinds, np.nan), users)):
    np.savez(tmp_path / "damaged.npz", **arrays, kind_shift=shift, user_shift=users)
    with pytest.raises(errors.DataError, match="kind_shift and user_shift are no finite numbers"):
      model_lib.LayerDAG.load(tmp_path / "damaged.npz")


def test_samples_name_the_collection_whose_opcodes_they_have(tmp_path):
  model, _ = untrained()
  model.generator.facts = dataclasses.replace(model.generator.facts, collection="tile:xla_cpu")
  model.save(tmp_path / "model.npz")
  samples = model_lib.LayerDAG.load(tmp_path / "model.npz").sample(
      2, options=sampler_lib.Options(max_nodes=400, max_layers=60))
  assert samples.provenance["collection"] == "tile:xla_cpu"
  words = samples.vocabularies[0]
  np.testing.assert_array_equal(views.attribute_names(samples, 0),
                                [opcodes.opcode_name(number) for number in words])


def test_samples_have_the_requested_labels():
  model, _ = untrained()
  options = sampler_lib.Options(max_nodes=400, max_layers=60)
  sampled = model.sample(5, {"runtime": [.1, .2, .3, .4, .5]}, options=options)
  assert sampled.y_names == ("runtime", "size")
  np.testing.assert_allclose(sampled.label("runtime"), [.1, .2, .3, .4, .5])
  known = set(model.generator.facts.conditions.table[:, 1])
  assert set(sampled.label("size")) <= known


def test_errors(monkeypatch):
  with pytest.raises(errors.TrainingError, match="not trained; call fit"):
    model_lib.LayerDAG().sample(1)
  model, dags = untrained()
  with pytest.raises(errors.ConfigError, match="'runtme' .did you mean 'runtime'.*runtime, size"):
    model.sample(2, {"runtme": 1.0})
  with pytest.raises(errors.ConfigError, match=r"shape \(3,\); expected one number, or 2"):
    model.sample(2, {"runtime": [1.0, 2.0, 3.0]})
  with pytest.raises(errors.ConfigError, match="data.conditions names 'speed'"):
    generator_lib.Facts.of(dags, small(data__conditions=("speed",)))
  monkeypatch.setattr(sampler_lib, "_MAX_FAILURES_PER_GRAPH", 0)
  with pytest.raises(errors.TrainingError, match="not be completed within 50 nodes and 1 layers"):
    model.sample(4, {"size": 40}, options=sampler_lib.Options(max_layers=1, batch=4))
  with pytest.raises(errors.ConfigError, match="temperature is 0"):
    model.sample(1, options=sampler_lib.Options(temperature=0))
  with pytest.raises(errors.DataError, match="x_names are opcode; .* trained on opcode, shape"):
    model.elbo(dags_lib.canonical([(np.array([[0, 1]]), np.array([0, 1]))], y=np.array([1.0])))


def test_other_and_damaged_files_are_refused(tmp_path):
  with pytest.raises(errors.MissingDataError):
    model_lib.LayerDAG.load(tmp_path / "none.npz")
  np.savez(tmp_path / "other.npz", a=np.zeros(3))
  with pytest.raises(errors.DataError, match="other.npz is no LayerDAG"):
    model_lib.LayerDAG.load(tmp_path / "other.npz")


def test_conditions_are_encoded_as_ranks_with_a_mask():
  table = np.array([[1.0, 5.0], [2.0, 9.0], [3.0, 20.0]])
  known = conditions.Conditions(("runtime", "size"), table, 4)
  actual = known.encode(np.array([[2.0, np.nan], [-7.0, 9.0], [np.nan, 100.0]]))
  # The second of three values is the median; the ends are the quantiles 0.5/4 and 3.5/4.
  assert actual["scalar"][0, 0] == pytest.approx(0.0)
  assert actual["scalar"][1, 0] == pytest.approx(-1.1503494, abs=1e-6)
  assert actual["scalar"][2, 1] == pytest.approx(1.1503494, abs=1e-6)
  np.testing.assert_array_equal(actual["specified"], [[1, 0], [1, 1], [0, 1]])
  np.testing.assert_array_equal(actual["target"], [0, 9, 100])
  assert actual["scalar"][0, 1] == 0 and actual["category"].tolist() == [-1, -1, -1]
  assert growth.MAX_COUNT > 100


@pytest.mark.slow
@pytest.mark.parametrize("encoder", settings.ENCODERS)
def test_every_operation_has_a_gpu_kernel(encoder):
  if not gpu_kernels.has_gpu_kernels():
    pytest.skip("this TensorFlow was built without GPU kernels")
  model, dags = untrained(encoder=encoder)
  fitter = fitting.Fitter(model.generator, dags, dags)
  model.sample(3, options=sampler_lib.Options(max_nodes=400, max_layers=60, guidance=1.5))
  (sampler,) = model._samplers.values()
  for function in (*fitter._train_step.values(), *fitter._bound.values(),
                   *sampler._functions.values()):
    assert gpu_kernels.ops_without_gpu_kernels(function.get_concrete_function()) == set()


@pytest.mark.slow
def test_fitting_again_starts_from_scratch_and_is_reproducible():
  dags = test_growth.make(1, count=8)
  model = model_lib.LayerDAG(small(fit__validate_every=1))
  options = sampler_lib.Options(max_nodes=400, max_layers=60)
  first = model.fit(dags).hash()
  sampled = model.sample(4, options=options)
  model.fit(test_growth.make(2, count=8))
  assert model.hash() != first
  assert not np.array_equal(model.sample(4, options=options).wl, sampled.wl)
  tf.random.uniform([3])
  assert model.fit(dags).hash() == first
  np.testing.assert_array_equal(model.sample(4, options=options).wl, sampled.wl)


def test_guidance_extrapolates_from_unconditional_to_conditional_logits():
  model, _ = untrained(data__conditions=("runtime",))
  sampler = sampler_lib.Sampler(model.generator, sampler_lib.Options(guidance=3.0))
  actual = sampler._guided([tf.constant([1.0, 5.0]), tf.constant([2.0, 4.0])])
  np.testing.assert_allclose(actual, [2.0 + 3.0 * (1.0 - 2.0), 4.0 + 3.0 * (5.0 - 4.0)])
  assert float(sampler_lib.Sampler(model.generator)._guided([tf.constant(7.0)])) == 7.0


def test_conditions_use_the_vocabulary_of_the_model():
  model, dags = untrained(data__conditions=("root",))
  expected = model.generator.conditions_of(dags)
  words = tuple(words[::-1].copy() for words in dags.vocabularies)
  turned = dags.in_vocabularies(words)
  assert not np.array_equal(conditions.values(turned, ("root",)), expected)
  np.testing.assert_array_equal(model.generator.conditions_of(turned), expected)


@pytest.mark.parametrize("direction", settings.DIRECTIONS)
def test_the_progress_of_a_finished_graph_equals_its_counts(direction):
  dags = test_growth.make(2, count=6)
  counts = conditions.values(dags, conditions.COUNTS)
  for graph, (size, depth, edges, leaves, roots) in enumerate(counts):
    users, operands = dags.num_users[dags.nodes(graph)], dags.num_operands[dags.nodes(graph)]
    assert (size, edges) == (len(users), len(dags.edges(graph)))
    assert (leaves, roots) == ((operands == 0).sum(), (users == 0).sum())
    assert depth == dags.level[dags.nodes(graph)].max() + 1
  for ordered, expected in zip(
      growth.order_graphs(dags, growth.Kinds.of(dags), direction), counts):
    np.testing.assert_array_equal(growth.unroll(ordered, direction)["progress"][-1], expected)


def test_other_counts_are_scaled_to_the_requested_size():
  table = np.array([[100.0, 50.0, 120.0], [200.0, 80.0, 260.0]])
  known = conditions.Conditions(("size", "depth", "edges"), table, 4)
  actual = conditions.sample_conditions(
      known, 40, {"size": 400, "depth": 33}, np.random.default_rng(0))
  # Four times the first graph, or twice the second one; the requested depth stays.
  assert {tuple(row) for row in actual.tolist()} == {(400.0, 33.0, 480.0), (400.0, 33.0, 520.0)}
  encoded = known.encode(np.array([[100.0, np.nan, 120.0]]))
  np.testing.assert_array_equal(encoded["targets"], [[100.0, -1.0, 120.0, -1.0, -1.0]])
  with pytest.raises(errors.ConfigError, match="expected at least 1: the depth of a graph"):
    conditions.sample_conditions(known, 2, {"depth": 0}, np.random.default_rng(0))


def test_unspecified_conditions_come_from_all_matching_graphs():
  table = np.stack([np.repeat([4.0, 9.0], 40), np.arange(80.0)], axis=1)
  known = conditions.Conditions(("size", "runtime"), table, 4)
  actual = conditions.sample_conditions(known, 500, {"size": 4}, np.random.default_rng(0))
  assert (actual[:, 0] == 4).all() and set(actual[:, 1]) == set(np.arange(40.0))


def test_inconsistent_settings_are_refused():
  dags = test_growth.make(1, count=8)
  for changes, message in (
      ({"fit__patience": 3, "fit__validate_every": 5}, "fit.patience is 3, fit.validate_every 5"),
      ({"data__conditions": ("size", "size")}, "size, size; expected distinct names")):
    with pytest.raises(errors.ConfigError, match=message):
      model_lib.LayerDAG(small(**changes)).fit(dags)
  with pytest.raises(errors.DataError, match="no validation graphs"):
    model_lib.LayerDAG(small()).fit(dags, valid=dags.take([]))
  with pytest.raises(errors.DataError, match="no training graphs"):
    model_lib.LayerDAG(small()).fit(dags.take([]), valid=dags)
  model, _ = untrained(data__conditions=("size", "root"), network__condition_dropout=0.0)
  for call, message in (
      (lambda: model.sample(0), "0 graphs with seed 0"),
      (lambda: model.sample(1, seed=-1), "seed -1"),
      (lambda: model.sample(1, {"size": "big"}), "'big'; expected numbers"),
      (lambda: model.sample(1, {"size": 0}), "holds 0; expected at least 1: the number of nodes"),
      (lambda: model.sample(1, {"root": 99}), "holds 99; expected indices .* 0 to 3"),
      (lambda: model.sample(1, {"root": 1.5}), "holds 1.5"),
      (lambda: model.sample(1, options=sampler_lib.Options(guidance=float("nan"))),
       "guidance is nan"),
      (lambda: model.sample(1, options=sampler_lib.Options(guidance=2.0)),
       "condition_dropout is 0")):
    with pytest.raises(errors.ConfigError, match=message):
      call()
