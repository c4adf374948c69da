"""Every family computes the same as NumPy, untiled and tiled. Needs the collector's JAX."""

from collections.abc import Callable

import numpy as np
import pytest

from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import configurations
from tpugraphs_rank.collect.tile import geometry

jax = pytest.importorskip(
    "jax", reason="needs JAX: run in an environment with tpugraphs_rank/collect/requirements.txt")
from tpugraphs_rank.collect.tile import builders  # pylint: disable=wrong-import-position
from tpugraphs_rank.collect.tile import measure  # pylint: disable=wrong-import-position

Arrays = tuple[np.ndarray, ...]


def _convolution(size: int, stride: int, same: bool) -> Callable[..., np.ndarray]:
  def convolve(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if same:
      x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = (x.shape[1] - size) // stride + 1
    columns = (x.shape[2] - size) // stride + 1
    out = np.zeros((x.shape[0], rows, columns, weights.shape[3]))
    for i in range(size):
      for j in range(size):
        part = x[:, i:i + rows * stride:stride, j:j + columns * stride:stride, :]
        out += np.einsum("nhwc,co->nhwo", part, weights[i, j])
    return out
  return convolve


def _depthwise(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
  rows, columns = x.shape[1] - 2, x.shape[2] - 2
  return sum(x[:, i:i + rows, j:j + columns, :] * weights[i, j, 0]
             for i in range(3) for j in range(3))


def _gelu(x: np.ndarray) -> np.ndarray:
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def _pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return x[:, None, :] - y[None, :, :]


def _softmax(x: np.ndarray) -> np.ndarray:
  weights = np.exp(x - x.max(axis=1, keepdims=True))
  return weights / weights.sum(axis=1, keepdims=True)


def _layer_norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
  return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * scale + shift


def _recurrence(gate: np.ndarray, x: np.ndarray) -> np.ndarray:
  states = [np.zeros_like(x[:, 0])]
  for t in range(x.shape[1]):
    states.append(states[-1] / (1 + np.exp(-gate[:, t])) + x[:, t])
  return np.stack(states[1:], axis=1)


def _decay(x: np.ndarray) -> np.ndarray:
  values = [np.zeros_like(x[0])]
  for row in x:
    values.append(0.9 * values[-1] + 0.1 * row)
  return np.stack(values[1:])


def _attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray | int) -> np.ndarray:
  scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + bias
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True) @ v


def _gap(size: int) -> np.ndarray:
  return np.arange(size)[:, None] - np.arange(size)


def _elu(x: np.ndarray) -> np.ndarray:
  return np.where(x > 0, x + 1, np.exp(x))


def _causal(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
  return np.tril(q @ np.swapaxes(k, -1, -2)) @ v


def _windows(x: np.ndarray) -> np.ndarray:
  return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))


def _laplacian(x: np.ndarray) -> np.ndarray:
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3))
  return (windows * np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])).sum((2, 3))


def _blur(x: np.ndarray) -> np.ndarray:
  windows = _windows(np.pad(x, ((1, 1), (1, 1), (0, 0)))[None])[0]
  total = (windows * np.outer([1, 2, 1], [1, 2, 1])).sum((3, 4))
  return total >> 4 if x.dtype.kind == "i" else total / 16


def _heat(x: np.ndarray) -> np.ndarray:
  weights = np.zeros((3, 3, 3))
  weights[1, 1] = weights[1, :, 1] = weights[:, 1, 1] = 0.125
  weights[1, 1, 1] = 1 - 6 * 0.125
  return (np.lib.stride_tricks.sliding_window_view(x, (3, 3, 3)) * weights).sum((3, 4, 5))


def _reaction(x: np.ndarray) -> np.ndarray:
  return x[1:-1, 1:-1] + 0.1 * _laplacian(x) + 0.2 * np.tanh(x[1:-1, 1:-1])


def _upwind(x: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
  change = np.zeros_like(x)
  for axis, speed in enumerate((down, across)):
    before, after = x - np.roll(x, 1, axis), np.roll(x, -1, axis) - x
    change += np.where(speed > 0, speed * before, speed * after)
  return x - 0.1 * change


def _hadamard(size: int) -> np.ndarray:
  matrix = np.ones((1, 1), np.int64)
  while len(matrix) < size:
    matrix = np.kron([[1, 1], [1, -1]], matrix)
  return matrix


def _fft_stage(x: np.ndarray, factors: np.ndarray) -> np.ndarray:
  values = x[0] + 1j * x[1]
  total, difference = values[0] + values[1], values[0] - values[1]
  both = np.stack([total, difference * (factors[0] + 1j * factors[1])])
  return np.stack([both.real, both.imag])


def _rotary(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
  values = (x[:, :, 0] + 1j * x[:, :, 1]) * np.exp(1j * angle)[:, None]
  return np.stack([values.real, values.imag], axis=2)


def _haar(x: np.ndarray) -> np.ndarray:
  quads = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).transpose(1, 3, 0, 2)
  bands = np.einsum("kij,ijrc->krc", np.reshape(_hadamard(4), (4, 2, 2)), quads)
  return bands if x.dtype.kind == "i" else bands / 2


# family -> (a small shape, the computation in NumPy on float64 or int64 operands)
EXPECTED: dict[str, tuple[tuple[int, ...], Callable[..., np.ndarray]]] = {
    "matmul": ((16, 24, 32), np.matmul),
    "matmul_skinny": ((8, 32, 48), np.matmul),
    "matmul_bias_relu": ((16, 24, 32), lambda a, b, c: np.maximum(a @ b + c, 0)),
    "matmul_bias_gelu": ((16, 24, 32), lambda a, b, c: _gelu(a @ b + c)),
    "matmul_batched": ((4, 16, 24, 16), np.matmul),
    "attention_scores": ((2, 16, 24, 16), lambda q, k, bias: np.einsum(
        "hsd,htd->hst", q, k) / 4 + bias),
    "attention_values": ((2, 16, 16, 24), lambda s, top, v: np.exp(s - top[..., None]) @ v),
    "conv_1x1": ((2, 8, 8, 16, 16), _convolution(1, 1, False)),
    "conv_3x3": ((1, 8, 16, 16, 8), _convolution(3, 1, True)),
    "conv_strided": ((1, 8, 8, 16, 16), _convolution(3, 2, False)),
    "conv_im2col": ((2, 8, 8, 16, 8), _convolution(3, 1, False)),
    "conv_depthwise": ((1, 8, 16, 16), _depthwise),
    "pairwise_l2": ((16, 24, 16), lambda x, y: (_pairs(x, y) ** 2).sum(-1)),
    "pairwise_l1": ((16, 24, 16), lambda x, y: np.abs(_pairs(x, y)).sum(-1)),
    "pairwise_linf": ((16, 24, 16), lambda x, y: np.abs(_pairs(x, y)).max(-1)),
    "pairwise_rbf": ((16, 24, 16), lambda x, y: np.exp(-(_pairs(x, y) ** 2).sum(-1) / 100)),
    "pairwise_hamming": ((16, 24, 16), lambda x, y: (_pairs(x, y) != 0).sum(-1)),
    "softmax": ((16, 32), _softmax),
    "log_softmax": ((16, 32), lambda x: np.log(_softmax(x))),
    "layer_norm": ((16, 32), _layer_norm),
    "rms_norm": ((16, 32), lambda x, scale: x / np.sqrt(
        (x ** 2).mean(1, keepdims=True) + 1e-5) * scale),
    "reduce_sum_minor": ((32, 48), lambda x: x.sum(1)),
    "reduce_max_minor": ((32, 48), lambda x: x.max(1)),
    "reduce_logsumexp_minor": ((32, 48), lambda x: np.log(np.exp(x).sum(1))),
    "reduce_sum_major": ((32, 48), lambda x: x.sum(0)),
    "reduce_norm_major": ((32, 48), lambda x: np.sqrt((x ** 2).sum(0))),
    "reduce_sum_middle": ((16, 24, 32), lambda x: x.sum(1)),
    "reduce_sum_outer": ((16, 24, 32), lambda x: x.sum((0, 2))),
    "transpose_10": ((16, 48), np.transpose),
    "transpose_021": ((16, 24, 32), lambda x: x.transpose(0, 2, 1)),
    "transpose_102": ((16, 24, 32), lambda x: x.transpose(1, 0, 2)),
    "transpose_120": ((16, 24, 32), lambda x: x.transpose(1, 2, 0)),
    "transpose_201": ((16, 24, 32), lambda x: x.transpose(2, 0, 1)),
    "transpose_210": ((16, 24, 32), lambda x: x.transpose(2, 1, 0)),
    "elementwise_chain": ((16, 48), lambda x: np.tanh(x / 2 + 0.1) * x + np.exp(-x ** 2)
                          if x.dtype.kind == "f" else (x * 3 + (x >> 1)) ^ (x * x - 5)),
    "elementwise_gate": ((16, 48), lambda x, y: x / (1 + np.exp(-y))
                         if x.dtype.kind == "f" else x * np.sign(y)),
    "elementwise_select": ((16, 48), lambda x, y: np.where(x > y, x - y, x + y)),
    "elementwise_broadcast": ((4, 16, 32), lambda x, column, row: np.clip(
        x * column + row[..., None], -4, 4)),
    "gather_rows": ((40, 32, 24), lambda table, index: table[index]),
    "gather_position": ((40, 32, 24), lambda table, index, more: table[index] * 3 + more),
    "gather_columns": ((16, 40, 24), lambda x, index: x[:, index]),
    "gather_bag": ((40, 32, 16, 8), lambda table, index: table[index].sum(1)),
    # Scans.
    "scan_sum_minor": ((24, 48), lambda x: x.cumsum(1)),
    "scan_sum_major": ((48, 24), lambda x: x.cumsum(0)),
    "scan_max_middle": ((4, 24, 32), lambda x: np.maximum.accumulate(x, 1)),
    "scan_recurrence": ((2, 24, 16), _recurrence),
    "scan_decay": ((48, 24), _decay),
    "scan_table": ((24, 48), lambda x: x.cumsum(0).cumsum(1)),
    # Fused attention.
    "flash_attention": ((2, 16, 32, 16), lambda q, k, v: _attend(q, k, v, 0)),
    "masked_attention": ((2, 16, 32, 16), lambda q, k, v, mask: _attend(
        q, k, v, np.where(mask > 0, 0, -1e9))),
    "alibi_attention": ((2, 32, 16), lambda q, k, v, slopes: _attend(
        q, k, v, np.where(_gap(32) >= 0, -slopes[:, None, None] * _gap(32), -1e9))),
    "window_attention": ((2, 32, 16, 12), lambda q, k, v: _attend(
        q, k, v, np.where((_gap(32) >= 0) & (_gap(32) < 12), 0, -1e9))),
    "grouped_attention": ((2, 3, 16, 24, 16), lambda q, k, v: _attend(
        q, k[:, None], v[:, None], 0)),
    "linear_attention": ((2, 32, 16, 8), lambda q, k, v: _causal(_elu(q), _elu(k), v)
                         / _causal(_elu(q), _elu(k), np.ones((2, 32, 1)))),
    # Triangular matrices.
    "triangular_solve": ((32, 24), np.linalg.solve),
    "triangular_matmul": ((32, 24), lambda a, b: np.tril(a) @ b),
    "syrk_lower": ((32, 16), lambda a: np.tril(a @ a.T)),
    "ldl_update": ((32, 16), lambda c, factor, d: np.tril(
        c - factor * d @ factor.T) + np.triu(c, 1)),
    "causal_product": ((2, 32, 16, 8), lambda q, k, v: np.tril(q @ k.transpose(0, 2, 1)) @ v),
    # Small integers.
    "int8_matmul": ((16, 24, 32), lambda a, b, row, column: a @ b * row[:, None] * column),
    "dynamic_matmul": ((16, 24, 32), lambda x, inverse, w, scale: np.clip(
        np.round(x * inverse[:, None]), -127, 127) @ w * scale / inverse[:, None]),
    "group_matmul": ((16, 24, 64), lambda x, w, scale: x @ (w * scale.repeat(32, 0))),
    "int4_matmul": ((16, 24, 32), lambda x, packed, scale: x @ np.concatenate(
        [(packed + 8) % 16 - 8, packed // 16]) * scale),
    "fake_quantise": ((16, 32), lambda x: np.round(
        x * 127 / np.abs(x).max(1, keepdims=True)) * np.abs(x).max(1, keepdims=True) / 127),
    "requantise_add": ((16, 48), lambda a, b, row, column: np.clip(
        np.round((a - 3) * row[:, None] + b * column) + 5, -128, 127)),
    # Counts.
    "row_histogram": ((16, 48, 24), lambda x: (x[:, :, None] == np.arange(24)).sum(1)),
    "weighted_histogram": ((48, 16, 24), lambda x, weights: (np.clip(
        np.floor((x + 3) * 4), 0, 23) == np.arange(24)[:, None]).astype(float) @ weights),
    "histogram_2d": ((48, 16, 24), lambda x, y: np.histogram2d(
        x, y, (np.arange(17), np.arange(25)))[0]),
    "joint_counts": ((48, 3, 16, 24), lambda x, y: np.einsum(
        "nfc,nl->fcl", x[:, :, None] == np.arange(16), y[:, None] == np.arange(24), dtype=int)),
    "cumulative_counts": ((48, 16, 24), lambda x, edges: (x <= edges[:, None, None]).sum(1)),
    "digitise": ((16, 24, 32), lambda x, edges: np.searchsorted(edges, x, "right")),
    # Writing where an index says.
    "segment_sum": ((48, 16, 24), lambda data, ids: (ids == np.arange(24)[:, None]) @ data),
    "segment_sum_sorted": ((48, 16, 24), lambda data, ids: (ids == np.arange(24)[:, None]) @ data),
    "onehot_sum": ((48, 16, 24), lambda data, ids: (ids == np.arange(24)[:, None]) @ data),
    "scatter_max": ((24, 16, 48), lambda table, ids, data: np.stack(
        [np.vstack([row, *data[ids == place]]).max(0) for place, row in enumerate(table)])),
    "scatter_rows": ((48, 16, 24), lambda table, ids, data: np.stack(
        [[*data[ids == place], row][0] for place, row in enumerate(table)])),
    "scatter_columns": ((16, 48, 24), lambda x, ids: x @ (ids[:, None] == np.arange(24))),
    # Stencils.
    "stencil_laplacian": ((24, 32), lambda x, source: source - _laplacian(x)),
    "stencil_blur": ((16, 24, 8), _blur),
    "stencil_heat": ((8, 16, 24), _heat),
    "stencil_two_steps": ((24, 32), lambda x: _reaction(_reaction(x))),
    "stencil_filter": ((24, 32, 16), lambda x, weights: sum(
        x[i:i + 24] * weights[i] for i in range(16))),
    "stencil_upwind": ((24, 32), _upwind),
    "stencil_pool": ((2, 8, 16, 16), lambda x: _windows(x).max((4, 5))),
    "stencil_pool_strided": ((2, 8, 16, 16), lambda x: _windows(x)[:, ::2, ::2].max((4, 5))),
    # Order.
    "sort_top": ((16, 48, 6), lambda x: -np.sort(-x, axis=1)[:, :6]),
    "sort_median": ((5, 24, 32), lambda x: np.median(x, axis=0)),
    "sort_window": ((24, 32), lambda x: np.median(
        np.lib.stride_tricks.sliding_window_view(x, 5, axis=0), axis=2)),
    "sort_rank": ((16, 48), lambda x: (x[:, None, :] < x[:, :, None]).sum(-1)),
    "sort_argmax": ((4, 48, 32), lambda x: x.argmax(1)),
    "sort_merge_step": ((16, 48), lambda x: np.stack(
        [np.minimum(x[:, 0], x[:, 1, ::-1]), np.maximum(x[:, 0], x[:, 1, ::-1])], axis=1)),
    # Butterflies.
    "butterfly_hadamard": ((2, 16, 24), lambda x: np.einsum("ij,bjc->bic", _hadamard(16), x)),
    "butterfly_hadamard_minor": ((24, 32), lambda x: x @ _hadamard(32)),
    "butterfly_fft": ((4, 32), _fft_stage),
    "butterfly_rotary": ((16, 4, 16), _rotary),
    "butterfly_haar": ((16, 24), _haar),
}

# Every family in all of its element types in the catalogue.
CASES = sorted({(kernel.family, kernel.dtype) for kernel in catalogue.kernels()})


def test_every_family_has_an_expected_result() -> None:
  assert set(EXPECTED) == set(geometry.FAMILIES) == set(builders.BUILDERS)


@pytest.mark.parametrize("family, dtype", CASES)
def test_family(family: str, dtype: str) -> None:
  shape, expected_of = EXPECTED[family]
  kernel = geometry.Kernel(family, shape, dtype)
  program = builders.build(kernel)
  operands = program.inputs(np.random.default_rng(0))
  wide = [array.astype(np.int64 if array.dtype == np.int32 else np.float64) for array in operands]
  result = np.asarray(jax.jit(program.reference)(*operands))
  assert result.shape == kernel.output_axes
  assert protocol.agrees(result, expected_of(*wide).astype(result.dtype), dtype)
  tiles = configurations.sample(kernel, 4, seed=1)
  tiles.append(configurations.admissible(kernel)[-1])  # Two steps, the minimum.
  for tile in tiles:
    compiled = jax.jit(program.tiled(tile)).lower(*operands).compile()
    assert protocol.agrees(np.asarray(compiled(*operands)), result, dtype), tile
    assert protocol.keeps_loop(compiled.as_text()), tile


def test_a_kernel_is_measured() -> None:
  kernel = geometry.Kernel("elementwise_gate", (64, 96), "f32")
  tiles = configurations.sample(kernel, 4, seed=0)
  settings = protocol.Protocol(sample_ns=1000, budget_ns=1000, min_rounds=1, max_rounds=1)
  record = measure.measure_kernel(kernel, tiles, 0, 1, settings)
  assert [entry["status"] for entry in record["configurations"]] == ["ok"] * 4
  assert all(entry["runtime_ns"] > 0 for entry in record["configurations"])
  assert len({entry["optimised_hlo"] for entry in record["configurations"]}) == 4
