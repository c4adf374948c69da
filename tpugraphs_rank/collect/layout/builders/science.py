"""Families of scientific computing: iterations, solvers, tensor networks, neural operators."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks


def _gaussian_process(batch: int, points: int, queries: int, width: int) -> blocks.Model:
  """Means and variances of a deep-kernel Gaussian process, by Newton iterations to the inverse."""
  def forward(w: blocks.Weights, x: jax.Array, y: jax.Array, new: jax.Array) -> jax.Array:
    kernel, shift = w.kernel(8, width), w.shift(width)
    known, asked = jnp.tanh(x @ kernel + shift), jnp.tanh(new @ kernel + shift)
    identity = np.eye(points, dtype=np.float32)
    covariance = jnp.exp(-blocks.squared_distances(known, known)) + 0.5 * identity
    inverse = identity / covariance.sum(-1).max(-1)[:, None, None]
    for _ in range(3):
      inverse = 2 * inverse - inverse @ (covariance @ inverse)
    cross = jnp.exp(-blocks.squared_distances(asked, known))
    gain = cross @ inverse
    variance = 1.5 - (gain * cross).sum(-1, keepdims=True)
    return jnp.concatenate([gain @ (y - y.mean(1, keepdims=True)), variance], axis=-1)
  return blocks.Model(forward, blocks.normal_inputs(
      (batch, points, 8), (batch, points, 3), (batch, queries, 8)))


def _kalman_filter(batch: int, steps: int, states: int, observed: int) -> blocks.Model:
  """Predictions of a linear system; each scalar of an observation corrects mean and covariance."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    move, watch = w.kernel(states, states), w.kernel(states, observed)
    values = blocks.linear(w, x, observed)
    noise = jax.nn.softplus(blocks.linear(w, x, observed)) + 0.1
    identity = np.eye(states, dtype=np.float32)
    mean = jnp.zeros((batch, states)) + w.shift(states)
    covariance = jnp.broadcast_to(identity, (batch, states, states))
    process, means = identity * jnp.square(w.scale(states)), []
    for step in range(steps):
      mean = mean @ move
      covariance = jnp.einsum("bsu,st->btu", covariance @ move, move) + process
      for index in range(observed):
        one, at = watch[:, index:index + 1], (slice(None), step, slice(index, index + 1))
        along = covariance @ one
        gain = along / (jnp.einsum("bso,sp->bop", along, one) + noise[at][:, None])
        mean = mean + gain[..., 0] * (values[at] - mean @ one)
        covariance = covariance - gain * along.swapaxes(1, 2)
      means.append(mean)
    return blocks.linear(w, jnp.stack(means, axis=1), 4)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, 6)))


def _sinkhorn(batch: int, points: int, width: int, heads: int, turns: int) -> blocks.Model:
  """Transport plans between two point clouds, one per head: rows and columns scaled in turn."""
  def forward(w: blocks.Weights, x: jax.Array, y: jax.Array) -> jax.Array:
    kernel = w.kernel(8, width)
    here, there = (blocks.split_heads(cloud @ kernel, heads) for cloud in (x, y))
    similar = jnp.exp(-blocks.squared_distances(here, there) / width)
    columns = jnp.ones((batch, heads, points))
    for _ in range(turns):
      rows = 1 / (jnp.einsum("bhnm,bhm->bhn", similar, columns) + 1e-3)
      columns = 1 / (jnp.einsum("bhnm,bhn->bhm", similar, rows) + 1e-3)
    plan = rows[..., None] * similar * columns[..., None, :]
    moved = blocks.merge_heads(plan @ there)
    return blocks.linear(w, jnp.concatenate([x, jax.nn.relu(moved)], axis=-1), 8)
  return blocks.Model(forward, blocks.normal_inputs((batch, points, 8), (batch, points, 8)))


def _newton_schulz(batch: int, length: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Layers with orthogonal matrices, one per head, from Newton-Schulz iterations; sorted pairs."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    size = width // heads
    for _ in range(layers):
      matrix = w.experts(heads, size, size)
      matrix = matrix * jax.lax.rsqrt(jnp.square(matrix).sum((1, 2), keepdims=True))
      for _ in range(3):
        gram = jnp.einsum("hij,hkj->hik", matrix, matrix)
        matrix = 1.5 * matrix - 0.5 * gram @ matrix
      y = jnp.einsum("bhnd,hde->bnhe", blocks.split_heads(x, heads), matrix)
      # The next layer's heads have channels of all heads.
      y = y.swapaxes(2, 3).reshape(batch, length, width // 2, 2) + w.shift(2)
      pairs = jnp.stack([y.max(-1), y.min(-1)], axis=-1)
      x = (x + pairs.reshape(batch, length, width)) / math.sqrt(2)
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _conjugate_gradient(batch: int, size: int, columns: int, steps: int) -> blocks.Model:
  """Steps of conjugate gradients for positive definite systems with several right-hand sides."""
  def forward(w: blocks.Weights, factors: jax.Array, sides: jax.Array) -> jax.Array:
    matrix = jnp.einsum("bij,bkj->bik", factors * w.scale(size) / size, factors)
    matrix = matrix + np.eye(size, dtype=np.float32)
    rest = blocks.linear(w, sides, columns)
    found, direction = jnp.zeros_like(rest), rest
    length = jnp.square(rest).sum(1, keepdims=True)
    for _ in range(steps):
      along = matrix @ direction
      rate = length / ((direction * along).sum(1, keepdims=True) + 1e-6)
      found, rest = found + rate * direction, rest - rate * along
      last, length = length, jnp.square(rest).sum(1, keepdims=True)
      direction = rest + length / (last + 1e-6) * direction
    return blocks.linear(w, found, 4)
  return blocks.Model(forward, blocks.normal_inputs((batch, size, size), (batch, size, 6)))


def _ridge_regression(tasks: int, shots: int, queries: int, width: int) -> blocks.Model:
  """Few-shot regression: each task's normal equations, solved by Gauss-Jordan elimination."""
  def forward(w: blocks.Weights, x: jax.Array, y: jax.Array, new: jax.Array) -> jax.Array:
    inner, outer = w.kernel(8, 2 * width), w.kernel(2 * width, width)
    known, asked = (jnp.tanh(jax.nn.relu(z @ inner) @ outer) for z in (x, new))
    identity = np.eye(width, dtype=np.float32)
    gram = jnp.einsum("tnd,tne->tde", known, known) + identity * jnp.square(w.scale(width))
    system = jnp.concatenate([gram, jnp.einsum("tnd,tnc->tdc", known, y)], axis=-1)
    for index in range(width):
      here = slice(index, index + 1)
      row = system[:, here] / system[:, here, here]
      column = system[:, :, here] - identity[:, here]
      system = system - column @ row
    return asked @ system[:, :, width:] + w.shift(3)
  return blocks.Model(forward, blocks.normal_inputs(
      (tasks, shots, 8), (tasks, shots, 3), (tasks, queries, 8)))


def _quantum_circuit(batch: int, qubits: int, layers: int) -> blocks.Model:
  """A state of qubits with real amplitudes: rotations of single qubits and controlled signs."""
  bits = (np.arange(2 ** qubits)[:, None] >> np.arange(qubits)[::-1]) & 1
  signs = ((-1.0) ** (bits & np.roll(bits, 1, axis=1)).sum(1)).astype(np.float32)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    angles = blocks.linear(w, x, qubits)
    pairs = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    state = pairs[:, 0]
    for index in range(1, qubits):
      state = (state[:, :, None] * pairs[:, index][:, None]).reshape(batch, -1)
    for _ in range(layers):
      turn = w.scale(qubits)
      gates = jnp.stack([jnp.cos(turn), jnp.sin(turn), -jnp.sin(turn), jnp.cos(turn)], axis=-1)
      gates = gates.reshape(qubits, 2, 2)
      for index in range(qubits):
        state = state.reshape(batch, 2 ** index, 2, -1)
        state = jnp.einsum("blir,ij->bljr", state, gates[index])
      state = state.reshape(batch, -1) * signs
    expected = jnp.square(state) @ (1 - 2 * bits).astype(np.float32)
    return blocks.linear(w, expected, 3)
  return blocks.Model(forward, blocks.normal_inputs((batch, 6)))


def _matrix_product_state(batch: int, length: int, bond: int) -> blocks.Model:
  """One matrix per position, chosen by its input; neighbours are multiplied until one is left."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    cores = w.experts(2 * length, bond, bond).reshape(length, 2, bond, bond)
    both = jnp.stack([jnp.cos(x), jnp.sin(x)], axis=-1)
    matrices = jnp.einsum("bsp,spij->bsij", both, cores)
    while matrices.shape[1] > 1:
      matrices = matrices[:, ::2] @ matrices[:, 1::2]
      size = jnp.square(matrices).mean((2, 3), keepdims=True)
      matrices = matrices * jax.lax.rsqrt(size + 1e-3)
    return blocks.linear(w, matrices.reshape(batch, bond * bond), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, length)))


def _harmonics(x: jax.Array | np.ndarray) -> list[jax.Array | np.ndarray]:
  """The 9 real spherical harmonics of degree 0 to 2 of unit vectors (..., 3)."""
  a, b, c = x[..., 0], x[..., 1], x[..., 2]
  root = math.sqrt(15)
  return [0 * a + 1, *(math.sqrt(3) * axis for axis in (a, b, c)), root * a * b, root * b * c,
          math.sqrt(5) / 2 * (3 * c * c - 1), root * a * c, root / 2 * (a * a - b * b)]


def _products_of_harmonics() -> np.ndarray:
  """The mean of the product of any three harmonics over the sphere, (9, 9, 9)."""
  heights, weights = np.polynomial.legendre.leggauss(8)
  angles = np.arange(16) * np.pi / 8
  radius = np.sqrt(1 - heights ** 2)[:, None]
  places = np.stack([radius * np.cos(angles), radius * np.sin(angles),
                     np.broadcast_to(heights[:, None], (8, 16))], axis=-1)
  values = np.stack(_harmonics(places), axis=-1)
  means = np.einsum("h,hai,haj,hak->ijk", weights / 32, values, values, values, optimize=True)
  return np.where(np.abs(means) < 1e-9, 0, means).astype(np.float32)


def _tensor_field(graphs: int, nodes: int, channels: int, layers: int) -> blocks.Model:
  """Features of degree 0 to 2, multiplied by the harmonics of the directions to other nodes."""
  products, degrees = _products_of_harmonics(), np.repeat(np.arange(3), (1, 3, 5))

  def forward(w: blocks.Weights, x: jax.Array, places: jax.Array) -> jax.Array:
    apart = places[:, :, None] - places[:, None]
    square = jnp.square(apart).sum(-1, keepdims=True)
    around = jnp.stack(_harmonics(apart * jax.lax.rsqrt(square + 0.1)), axis=-1)
    for _ in range(layers):
      radial = jnp.exp(-square * jnp.square(w.scale(9)))
      raised = jnp.einsum("gmci,ijk->gmcjk", x, products)
      y = jnp.einsum("gnmj,gmcjk->gnck", radial * around, raised) / nodes
      y = jnp.einsum("gnck,kcd->gndk", x + y, w.experts(3, channels, channels)[degrees])
      x = x + y * jax.nn.sigmoid(blocks.linear(w, y[..., 0], channels))[..., None]
    return blocks.linear(w, x[..., 0], 10)
  return blocks.Model(forward, blocks.normal_inputs(
      (graphs, nodes, channels, 9), (graphs, nodes, 3)))


def _stream(x: jax.Array, axis: int, directions: int) -> jax.Array:
  """Moves the three slices of the axis of directions by -1, 0, and 1 along another axis."""
  back, rest, ahead = jnp.split(x, 3, axis=directions)
  return jnp.concatenate([jnp.roll(back, -1, axis), rest, jnp.roll(ahead, 1, axis)],
                         axis=directions)


def _lattice_boltzmann(batch: int, side: int, steps: int) -> blocks.Model:
  """Flow on a grid with 9 velocities: relaxation to the equilibrium, then a move to neighbours."""
  velocities = np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)], np.float32)
  shares = np.array([(1, 4, 1), (4, 16, 4), (1, 4, 1)], np.float32).reshape(9) / 36

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    relaxation = 0.5 * np.eye(9, dtype=np.float32) + 0.2 * w.kernel(9, 9)
    flow = shares * jnp.exp(0.2 * x)
    for _ in range(steps):
      density = flow.sum(-1, keepdims=True)
      speed = flow @ velocities / density
      along = speed @ velocities.T
      energy = jnp.square(speed).sum(-1, keepdims=True)
      balance = shares * density * (1 + 3 * along + 4.5 * along * along - 1.5 * energy)
      flow = (flow + (balance - flow) @ relaxation).reshape(batch, side, side, 3, 3)
      flow = _stream(_stream(flow, 1, 3), 2, 4).reshape(batch, side, side, 9)
    return blocks.linear(w, 9 * flow, 3)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 9)))


def _fourier_operator(batch: int, points: int, width: int, modes: int, layers: int
                      ) -> blocks.Model:
  """Products with Fourier matrices, a complex matrix for each low frequency, and the way back."""
  phase = 2 * np.pi / points * np.outer(np.arange(points), np.arange(modes))
  cosine, sine = (wave(phase).astype(np.float32) for wave in (np.cos, np.sin))

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.linear(w, x, width)
    for _ in range(layers):
      real, imaginary = (jnp.einsum("bnw,nk->bkw", x, wave) * (2 / points)
                         for wave in (cosine, -sine))
      one, other = (w.experts(modes, width, width) for _ in range(2))
      mix = lambda part, matrix: jnp.einsum("bkw,kwv->bkv", part, matrix)
      real, imaginary = (mix(real, one) - mix(imaginary, other),
                         mix(real, other) + mix(imaginary, one))
      y = (jnp.einsum("bkv,nk->bnv", real, cosine) - jnp.einsum("bkv,nk->bnv", imaginary, sine))
      x = jax.nn.gelu(y + blocks.linear(w, x, width))
    return blocks.linear(w, x, 2)
  return blocks.Model(forward, blocks.normal_inputs((batch, points, 3)))


def _physics_informed(nets: int, points: int, width: int, layers: int) -> blocks.Model:
  """Nets of place and time, one per problem, and their derivatives in Burgers' equation."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    sizes = [2, *[width] * layers]
    hidden = [(w.experts(nets, *pair), w.shift(width)) for pair in zip(sizes, sizes[1:])]
    last = w.experts(nets, 1, width) / math.sqrt(width)

    def solution(y: jax.Array) -> jax.Array:
      for kernel, shift in hidden:
        y = jnp.tanh(y @ kernel + shift)
      return (y * last).sum(-1)

    toward = [jnp.broadcast_to(np.eye(2, dtype=np.float32)[axis], x.shape) for axis in range(2)]
    slope = lambda y: jax.jvp(solution, (y,), (toward[0],))
    (value, first), (_, second) = jax.jvp(slope, (x,), (toward[0],))
    change = jax.jvp(solution, (x,), (toward[1],))[1]
    return jnp.stack([value, change + value * first - 0.1 * second], axis=-1)
  return blocks.Model(forward, blocks.normal_inputs((nets, points, 2)))


def _matrix_factorisation(batch: int, rows: int, columns: int, rank: int, steps: int
                          ) -> blocks.Model:
  """Non-negative factors of each matrix, improved by multiplicative updates in turn."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    values = jax.nn.softplus(x)
    left = jax.nn.softplus(x @ w.kernel(columns, rank))
    right = jax.nn.softplus(jnp.einsum("bnm,nr->brm", x, w.kernel(rows, rank)))
    for _ in range(steps):
      gram = jnp.einsum("bnr,bns->brs", left, left)
      right = right * jnp.einsum("bnr,bnm->brm", left, values) / (gram @ right + 0.1)
      gram = jnp.einsum("brm,bsm->brs", right, right)
      left = left * jnp.einsum("bnm,brm->bnr", values, right) / (left @ gram + 0.1)
    return values - left @ right + w.shift(columns)
  return blocks.Model(forward, blocks.normal_inputs((batch, rows, columns)))


def _tsne(batch: int, points: int, width: int, steps: int) -> blocks.Model:
  """Gradient steps of t-SNE: similarities of the data and of their places on a map."""
  apart = 1 - np.eye(points, dtype=np.float32)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    y = jnp.tanh(blocks.linear(w, x, width))
    similar = jax.nn.softmax(jnp.where(apart > 0, -blocks.squared_distances(y, y), -1e9))
    similar = (similar + similar.swapaxes(1, 2)) / 2
    places, rates = blocks.linear(w, y, 3), w.scale(3)
    for _ in range(steps):
      near = apart / (1 + blocks.squared_distances(places, places))
      pull = (similar - points * near / near.sum((1, 2), keepdims=True)) * near
      places = places - rates * (pull.sum(-1, keepdims=True) * places - pull @ places)
    return places
  return blocks.Model(forward, blocks.normal_inputs((batch, points, 16)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "gaussian_process": _gaussian_process, "kalman_filter": _kalman_filter,
    "sinkhorn": _sinkhorn, "newton_schulz": _newton_schulz,
    "conjugate_gradient": _conjugate_gradient, "ridge_regression": _ridge_regression,
    "quantum_circuit": _quantum_circuit, "matrix_product_state": _matrix_product_state,
    "tensor_field": _tensor_field, "lattice_boltzmann": _lattice_boltzmann,
    "fourier_operator": _fourier_operator, "physics_informed": _physics_informed,
    "matrix_factorisation": _matrix_factorisation, "tsne": _tsne}
