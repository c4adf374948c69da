"""The model families and the requested layouts. Needs the collector's JAX."""

import base64
import math
import re

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.collect.layout import measure
from tpugraphs_rank.hlo import hlo_pb2

jax = pytest.importorskip(
    "jax", reason="needs JAX: run in an environment with tpugraphs_rank/collect/requirements.txt")
import jax.numpy as jnp  # pylint: disable=wrong-import-position

from tpugraphs_rank.collect.layout import builders  # pylint: disable=wrong-import-position
from tpugraphs_rank.collect.layout import sites as sites_lib  # pylint: disable=wrong-import-position
from tpugraphs_rank.collect.layout.builders import blocks  # pylint: disable=wrong-import-position

# family -> (a small shape, the shape of the model's output)
SMALL: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "resnet": ((2, 8, 4, 2), (2, 10)),
    "separable": ((2, 8, 4, 1), (2, 10)),
    "densenet": ((2, 8, 4, 2), (2, 10)),
    "convolution_1d": ((2, 16, 4, 2), (2, 16, 10)),
    "conv_autoencoder": ((2, 8, 4, 2), (2, 8, 8, 3)),
    "bottleneck": ((2, 8, 16, 1), (2, 10)),
    "unet": ((2, 8, 4, 2), (2, 8, 8, 2)),
    "squeeze_excite": ((2, 8, 8, 1), (2, 10)),
    "encoder": ((2, 6, 8, 2, 1), (2, 6, 8)),
    "decoder": ((2, 6, 5, 8, 2), (2, 6, 8)),
    "vision_transformer": ((2, 8, 4, 8, 2), (2, 10)),
    "multi_query": ((2, 6, 8, 2, 1), (2, 6, 8)),
    "linear_attention": ((2, 6, 8, 2, 1), (2, 6, 8)),
    "mlp_layer_norm": ((6, 8, 2), (6, 10)),
    "mlp_batch_norm": ((6, 8, 2), (6, 10)),
    "autoencoder": ((6, 8, 3), (6, 8)),
    "mixer": ((2, 6, 8, 1), (2, 10)),
    "gated_mlp": ((2, 6, 8, 1), (2, 6, 8)),
    "experts": ((6, 8, 3), (6, 8)),
    "lstm": ((3, 2, 8), (3, 2, 16)),
    "peephole": ((3, 2, 8), (3, 16)),
    "bidirectional": ((3, 2, 8), (3, 2, 16)),
    "gru": ((3, 2, 8), (3, 2, 16)),
    "graph_convolution": ((2, 6, 8, 1), (2, 10)),
    "message_passing": ((6, 12, 8, 1), (6, 10)),
    "graph_attention": ((2, 6, 8, 2, 1), (2, 6, 10)),
    "inception": ((2, 8, 4, 1), (2, 10)),
    "channel_shuffle": ((2, 8, 4, 1), (2, 10)),
    "patch_convolution": ((2, 8, 4, 1), (2, 10)),
    "gated_convolution_1d": ((2, 16, 4, 2), (2, 16, 10)),
    "fire": ((2, 8, 8, 1), (2, 10)),
    "super_resolution": ((2, 6, 4, 1), (2, 12, 12, 3)),
    "non_local": ((2, 8, 4, 1), (2, 10)),
    "talking_heads": ((2, 6, 8, 2, 1), (2, 6, 8)),
    "window_attention": ((2, 8, 4, 8, 2), (2, 10)),
    "axial_attention": ((2, 6, 8, 2, 1), (2, 6, 6, 10)),
    "projected_attention": ((2, 12, 4, 8, 2), (2, 12, 8)),
    "grouped_query": ((2, 6, 8, 4, 2), (2, 6, 8)),
    "latent_attention": ((2, 12, 4, 8, 2), (2, 10)),
    "relative_attention": ((2, 6, 8, 2, 1), (2, 6, 8)),
    "highway": ((6, 8, 2), (6, 10)),
    "low_rank": ((6, 8, 3, 2), (6, 8)),
    "cross_network": ((6, 8, 2), (6, 10)),
    "block_diagonal": ((6, 3, 4, 1), (6, 10)),
    "variational": ((6, 8, 3), (6, 8)),
    "interaction_features": ((6, 4, 8), (6, 1)),
    "hypernetwork": ((2, 6, 8, 3), (2, 6, 10)),
    "capsules": ((2, 6, 3, 4), (2, 10)),
    "minimal_gated": ((3, 2, 8), (3, 16)),
    "differential": ((3, 8, 1), (3, 16)),
    "quasi_recurrent": ((3, 3, 8), (3, 3, 16)),
    "state_space": ((3, 2, 8, 4), (3, 2, 16)),
    "convolutional_lstm": ((2, 2, 6, 4), (2, 6, 6, 3)),
    "attentive": ((3, 5, 2, 8), (3, 2, 16)),
    "isomorphism": ((2, 6, 8, 1), (2, 10)),
    "relational": ((2, 6, 3, 8, 1), (2, 6, 10)),
    "edge_convolution": ((2, 6, 8, 1), (2, 10)),
    "equivariant": ((2, 6, 8, 1), (2, 6, 10)),
    "graph_transformer": ((2, 6, 8, 2, 1), (2, 10)),
    "interaction_network": ((2, 6, 8, 1), (2, 6, 10)),
    # Scientific computing, computer vision and graphs with more structure.
    "gaussian_process": ((2, 6, 5, 4), (2, 5, 4)),
    "kalman_filter": ((3, 2, 4, 2), (3, 2, 4)),
    "sinkhorn": ((2, 6, 8, 2, 2), (2, 6, 8)),
    "newton_schulz": ((2, 6, 8, 2, 2), (2, 6, 10)),
    "conjugate_gradient": ((2, 6, 4, 2), (2, 6, 4)),
    "ridge_regression": ((3, 6, 5, 4), (3, 5, 3)),
    "quantum_circuit": ((2, 4, 2), (2, 3)),
    "matrix_product_state": ((3, 8, 4), (3, 10)),
    "tensor_field": ((2, 4, 4, 1), (2, 4, 10)),
    "lattice_boltzmann": ((2, 6, 2), (2, 6, 6, 3)),
    "fourier_operator": ((2, 12, 6, 4, 2), (2, 12, 2)),
    "physics_informed": ((2, 6, 8, 2), (2, 6, 2)),
    "matrix_factorisation": ((2, 6, 8, 3, 2), (2, 6, 8)),
    "tsne": ((2, 6, 8, 2), (2, 6, 3)),
    "radiance_field": ((4, 6, 8, 2), (4, 3)),
    "coupling_flow": ((2, 8, 8, 2), (2, 4, 4)),
    "optical_flow": ((2, 8, 4), (2, 4, 4, 2)),
    "spatial_transformer": ((2, 8, 4), (2, 10)),
    "deformable_parts": ((2, 16, 4), (2, 10)),
    "vector_quantiser": ((2, 8, 8, 2, 4), (2, 8, 8, 3)),
    "point_net": ((2, 6, 8), (2, 6, 10)),
    "involution": ((2, 8, 8, 2, 1), (2, 10)),
    "spatiotemporal": ((2, 4, 8, 4, 1), (2, 4, 10)),
    "graph_pooling": ((2, 6, 8, 4), (2, 10)),
    "metapath": ((2, 6, 5, 8, 1), (2, 6, 5)),
    "hypergraph": ((2, 6, 5, 8, 1), (2, 6, 10)),
    "knowledge_graph": ((4, 6, 2, 4), (4, 6)),
    "continuous_filter": ((2, 6, 8, 1), (2, 1)),
    # Sequence models, structured layers, other attention and recurrent cells.
    "retention": ((2, 6, 8, 2, 1), (2, 6, 8)),
    "gated_linear_attention": ((2, 3, 4, 8, 2), (2, 12, 8)),
    "state_space_duality": ((2, 6, 8, 2, 4), (2, 6, 8)),
    "long_convolution": ((2, 6, 8, 2), (2, 6, 8)),
    "rwkv": ((3, 4, 8, 1), (3, 4, 16)),
    "hidden_markov": ((3, 4, 5, 6), (3, 4, 6)),
    "conditional_random_field": ((3, 4, 2, 5, 8), (3, 4, 2, 5)),
    "clockwork": ((3, 4, 3, 4), (3, 4, 16)),
    "tree_lstm": ((3, 4, 8), (3, 7, 16)),
    "fast_weights": ((3, 3, 2, 4), (3, 3, 16)),
    "stack_augmented": ((3, 3, 2, 4, 8), (3, 5, 16)),
    "legendre_memory": ((3, 3, 4, 6, 8), (3, 3, 16)),
    "sliding_window_attention": ((2, 3, 4, 8, 2), (2, 12, 8)),
    "nystrom_attention": ((2, 12, 4, 8, 2), (2, 12, 8)),
    "synthesizer": ((2, 6, 8, 2, 1), (2, 6, 8)),
    "triangle_update": ((2, 5, 8, 1), (2, 5, 5, 10)),
    "outer_product_mean": ((2, 3, 5, 8, 2), (2, 5, 5, 16)),
    "cross_covariance_attention": ((2, 6, 8, 2, 1), (2, 10)),
    "attention_flow": ((2, 6, 5, 8), (2, 6, 2)),
    "tensor_train": ((4, 3, 2, 2), (4, 10)),
    "kronecker": ((4, 3, 5, 2, 2), (4, 10)),
    "butterfly": ((6, 3, 2), (6, 10)),
    "variable_selection": ((6, 4, 8), (6, 10)),
    "neural_additive": ((6, 4, 8, 3), (6, 3)),
    "mixture_of_softmaxes": ((2, 5, 8, 3, 7), (2, 5, 7)),
    "product_key_memory": ((6, 2, 4, 6), (6, 10)),
    "oblivious_trees": ((6, 5, 4, 3), (6, 4)),
    "kolmogorov_arnold": ((6, 5, 6, 2), (6, 10)),
    "quaternion": ((6, 5, 2), (6, 10)),
    "bilinear_fusion": ((3, 5, 8, 3, 4), (3, 10)),
    "late_interaction": ((4, 3, 5, 8), (4, 4)),
    "n_beats": ((3, 4, 12, 5, 8), (3, 4, 5)),
}


def _rng() -> np.random.Generator:
  return np.random.default_rng(0)


def _traced(family: str, mode: str) -> tuple[sites_lib.Traced, list[np.ndarray]]:
  function, arguments = builders.build(
      catalogue.ModelProgram(family, SMALL[family][0], mode), _rng())
  return sites_lib.Traced(function, arguments), arguments


def _plain(module: bytes) -> hlo_pb2.HloModuleProto:
  """The program without its process-dependent number and its source lines."""
  parsed = hlo_pb2.HloModuleProto.FromString(module)
  parsed.DiscardUnknownFields()
  parsed.ClearField("id")
  return parsed


def test_every_family_has_a_small_shape() -> None:
  assert set(SMALL) == set(catalogue.FAMILIES) == set(builders.BUILDERS)


@pytest.mark.parametrize("family", sorted(SMALL))
def test_training_steps_down_the_gradient_of_the_error(family: str) -> None:
  shape, output = SMALL[family]
  forward, inputs = builders.build(catalogue.ModelProgram(family, shape, "forward"), _rng())
  training, arguments = builders.build(catalogue.ModelProgram(family, shape, "training"), _rng())
  assert all((one == other).all() for one, other in zip(inputs, arguments))
  (predicted,) = jax.jit(forward)(*inputs)
  assert predicted.shape == output and np.isfinite(predicted).all()
  loss, *weights = jax.jit(training)(*arguments)
  error = lambda values: float(jnp.mean(jnp.square(values - arguments[-1])))
  assert loss == pytest.approx(error(predicted), rel=1e-5)
  # The step is -rate * gradient, so the error decreases along it by |step|^2 / rate. This is
  # checked on a small part of the step, where the error is nearly linear.
  part = 1e-3
  steps = [np.asarray(new, np.float64) - old for new, old in zip(weights, arguments)]
  squared = sum(float((step ** 2).sum()) for step in steps)
  assert squared > 0
  moved = {sign: [(old + sign * part * step).astype(np.float32)
                  for step, old in zip(steps, arguments)] for sign in (-1, 1)}
  rest = inputs[len(weights):]
  after, before = (error(jax.jit(forward)(*moved[sign], *rest)[0]) for sign in (1, -1))
  slope = (before - after) / (2 * part)
  assert slope == pytest.approx(squared / builders.LEARNING_RATE, rel=0.1, abs=2e-3 * float(loss))


@pytest.mark.parametrize("mode", catalogue.MODES)
@pytest.mark.parametrize("family", sorted(SMALL))
def test_sites_are_the_instructions_of_their_equations(family: str, mode: str) -> None:
  traced, _ = _traced(family, mode)
  module = sites_lib.module_bytes(traced.lower({}))
  sites, numbers = sites_lib.configurable(traced, module)
  instructions = [instruction
                  for computation in hlo_pb2.HloModuleProto.FromString(module).computations
                  for instruction in computation.instructions]
  assert [site.node for site in sites] == sorted({site.node for site in sites})
  assert len(sites) == len(set(numbers)) > 0
  by_id = {instruction.id: instruction for instruction in instructions}
  for site in sites:
    instruction = instructions[site.node]
    assert instruction.opcode == site.opcode
    assert tuple(instruction.shape.dimensions) == site.shapes[0]
    operands = [tuple(by_id[operand].shape.dimensions) for operand in instruction.operand_ids]
    assert operands == list(site.shapes[1:])
  # All products and convolutions of the entry are sites, except for those of vectors.
  heavy = [instruction for instruction in instructions
           if instruction.opcode in ("dot", "convolution")]
  assert sum(site.opcode != "reshape" for site in sites) >= 0.9 * len(heavy)


@pytest.mark.parametrize("mode", catalogue.MODES)
@pytest.mark.parametrize("family", ["unet", "decoder", "lstm", "message_passing"])
def test_requests_change_the_program_and_not_its_numbers(family: str, mode: str) -> None:
  traced, arguments = _traced(family, mode)
  module = sites_lib.module_bytes(traced.lower({}))
  sites, numbers = sites_lib.configurable(traced, module)
  plain = traced.lower({}).compile()
  expected = [np.asarray(array) for array in plain(*arguments)]
  rng = _rng()
  drawn = configurations.replace(configurations.default(sites), [
      ((site, tensor), tuple(map(int, rng.permutation(len(sites[site].shapes[tensor])))))
      for site, tensor in configurations.slots(sites)])
  lowered = traced.lower(dict(zip(numbers, drawn)))
  layout_constraints = re.findall(r"LayoutConstraint", lowered.as_text())
  assert len(layout_constraints) >= configurations.constraints(drawn)
  compiled = lowered.compile()
  assert measure.agrees([np.asarray(array) for array in compiled(*arguments)], expected)
  assert protocol.normalised_hlo(compiled.as_text()) != protocol.normalised_hlo(plain.as_text())
  # The program without requests is featurized, whatever is measured.
  assert _plain(sites_lib.module_bytes(traced.lower({}))) == _plain(module)


def test_requests_are_respected() -> None:
  x = np.zeros((8, 6, 4), np.float32)
  traced = sites_lib.Traced(lambda a: [jnp.sin(a.reshape(48, 4))], [x])
  assert (traced.opcodes, traced.shapes) == (["reshape"], [((48, 4), (8, 6, 4))])
  text = traced.lower({0: ((0, 1), ())}).compile().as_text()
  assert "f32[48,4]{0,1}" in text
  assert "f32[48,4]{0,1}" not in traced.lower({}).compile().as_text()
  text = traced.lower({0: ((), (1, 0, 2))}).compile().as_text()
  assert "f32[8,6,4]{1,0,2}" in text


def test_equations_of_inner_functions_are_found() -> None:
  def program(a: jax.Array, b: jax.Array) -> list[jax.Array]:
    return [jax.nn.relu(jax.jit(lambda p, q: jax.nn.gelu(p @ q))(a, b)) @ b]

  arrays = [np.ones((4, 4), np.float32) / 4] * 2
  traced = sites_lib.Traced(program, arrays)
  assert traced.opcodes == ["dot", "dot"]
  (result,) = traced.lower({0: ((0, 1), (), ())}).compile()(*arrays)
  assert np.allclose(result, program(*map(jnp.asarray, arrays))[0])


def test_weights_are_provided_in_order() -> None:
  drawing = blocks.Weights(rng=_rng())
  first = [drawing.kernel(3, 4), drawing.scale(5), drawing.shift(5), drawing.experts(2, 3, 4)]
  again = blocks.Weights(drawing.arrays)
  second = [again.kernel(3, 4), again.scale(5), again.shift(5), again.experts(2, 3, 4)]
  assert all((one == other).all() for one, other in zip(first, second))
  many = blocks.Weights(rng=_rng())
  assert np.std(many.kernel(3, 3, 50, 60)) == pytest.approx(1 / math.sqrt(450), rel=0.05)
  assert np.std(many.experts(4, 100, 60)) == pytest.approx(1 / math.sqrt(100), rel=0.05)


def test_a_program_is_measured_in_two_passes() -> None:
  program = catalogue.ModelProgram("unet", (1, 8, 4, 1), "forward")
  settings = protocol.Protocol(sample_ns=1, budget_ns=1, min_rounds=1, max_rounds=2)
  first = measure.measure(program, 6, 8, 0, 1, settings)
  entries = [entry for entry in first["configurations"] if entry["status"] == "ok"]
  assert [entry["kind"] for entry in entries][0] == "default" and len(entries) == 8
  assert all(entry["runtime_ns"] > 0 for entry in entries)
  assert len({entry["optimised_hlo"] for entry in entries}) == 8
  second = measure.measure(program, 6, 8, 0, 2, settings, first)
  modules = [base64.b64decode(record["module"]) for record in (first, second)]
  assert _plain(modules[0]) == _plain(modules[1])
  keys = lambda entry: (entry["layouts"], entry["optimised_hlo"])
  assert [keys(entry) for entry in second["configurations"]] == list(map(keys, entries))
  other = {**first, "sites": first["sites"][1:]}
  with pytest.raises(errors.DataError, match="other sites.*measure it again"):
    measure.measure(program, 6, 8, 0, 2, settings, other)


def test_larger_programs_get_fewer_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
  program = catalogue.ModelProgram("unet", (1, 8, 4, 1), "forward")
  settings = protocol.Protocol(sample_ns=1, budget_ns=1, min_rounds=1, max_rounds=1)
  monkeypatch.setattr(measure, "SMALL_PROGRAM", 1)
  record = measure.measure(program, 3, 8, 0, 1, settings)
  assert sum(entry["status"] == "ok" for entry in record["configurations"]) == 3
