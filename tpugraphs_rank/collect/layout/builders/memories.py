"""Families of unrolled recurrent cells whose state has parts: modules, trees, matrices, stacks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks

INPUTS = 32
sigmoid = jax.nn.sigmoid


def _clockwork(batch: int, steps: int, modules: int, size: int) -> blocks.Model:
  """Module i changes in every 2^i-th step and reads itself and the slower modules."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    projected = blocks.linear(w, x, modules * size).reshape(batch, steps, modules, size)
    kernel = w.kernel(modules * size, modules * size).reshape(modules, size, modules, size)
    kernel = kernel * np.tril(np.ones((modules, modules), np.float32))[:, None, :, None]
    state, states = jnp.zeros((batch, modules, size)), []
    for step in range(steps):
      active = sum(step % 2 ** module == 0 for module in range(modules))
      read = jnp.einsum("bms,msnu->bnu", state, kernel[:, :, :active])
      fast = jnp.tanh(projected[:, step, :active] + read)
      state = jnp.concatenate([fast, state[:, active:]], axis=1)
      states.append(state)
    every = jnp.stack(states, axis=1).reshape(batch, steps, modules * size)
    return blocks.linear(w, every, 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _tree_lstm(batch: int, leaves: int, width: int) -> blocks.Model:
  """An LSTM on a binary tree: one level after another, each child with its own forget gate."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    enter, output, change = jnp.split(blocks.linear(w, x, 3 * width), 3, axis=-1)
    cell = sigmoid(enter) * jnp.tanh(change)
    state = sigmoid(output) * jnp.tanh(cell)
    kernel, shift = w.kernel(2 * width, 5 * width), w.shift(5 * width)
    levels, nodes = [state], leaves
    while nodes > 1:
      nodes //= 2
      gates = state.reshape(batch, nodes, 2 * width) @ kernel + shift
      gates = gates.reshape(batch, nodes, 5, width)
      kept = sigmoid(gates[:, :, 3:]) * cell.reshape(batch, nodes, 2, width)
      cell = sigmoid(gates[:, :, 0]) * jnp.tanh(gates[:, :, 1]) + kept.sum(2)
      state = sigmoid(gates[:, :, 2]) * jnp.tanh(cell)
      levels.append(state)
    return blocks.linear(w, jnp.concatenate(levels, axis=1), 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, leaves, INPUTS)))


def _fast_weights(batch: int, steps: int, heads: int, size: int) -> blocks.Model:
  """The state is a matrix per head; each step corrects the value that it has for a key."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    projected = blocks.linear(w, x, 3 * heads * size).reshape(batch, steps, 3, heads, size)
    query, key, value = (projected[:, :, index] for index in range(3))
    query, key = jax.nn.silu(query), jax.nn.silu(key)
    key = key * jax.lax.rsqrt(jnp.square(key).sum(-1, keepdims=True) + 1e-3)
    rate = sigmoid(blocks.linear(w, x, heads))[..., None]
    matrix, reads = jnp.zeros((batch, heads, size, size)), []
    for step in range(steps):
      old = jnp.einsum("bhkv,bhk->bhv", matrix, key[:, step])
      change = rate[:, step] * (value[:, step] - old)
      matrix = matrix + jnp.einsum("bhk,bhv->bhkv", key[:, step], change)
      reads.append(jnp.einsum("bhkv,bhk->bhv", matrix, query[:, step]))
    y = blocks.rms_norm(w, jnp.stack(reads, axis=1))
    return blocks.linear(w, y.reshape(batch, steps, heads * size), 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _stack_augmented(batch: int, steps: int, stacks: int, depth: int, width: int
                     ) -> blocks.Model:
  """A plain cell that reads the tops of stacks and pushes, pops and keeps by softmax shares."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    projected = blocks.linear(w, x, width)
    recur, act = w.kernel(width, width), w.kernel(width, 3 * stacks)
    read, write = w.kernel(stacks, width, width), w.kernel(width, stacks * width)
    state, stack = jnp.zeros((batch, width)), jnp.zeros((batch, stacks, depth, width))
    states = []
    for step in range(steps):
      tops = jnp.einsum("bsw,swu->bu", stack[:, :, 0], read)
      state = jnp.tanh(projected[:, step] + state @ recur + tops)
      shares = jax.nn.softmax((state @ act).reshape(batch, stacks, 3))
      push, pop, keep = (shares[:, :, index, None, None] for index in range(3))
      value = jnp.tanh(state @ write).reshape(batch, stacks, 1, width)
      pushed = jnp.concatenate([value, stack[:, :, :-1]], axis=2)
      popped = jnp.pad(stack[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
      stack = push * pushed + pop * popped + keep * stack
      states.append(state)
    left = jnp.einsum("bsdw,dwu->bsu", stack, w.kernel(depth, width, width))
    return blocks.linear(w, jnp.concatenate([jnp.stack(states, axis=1), left], axis=1), 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _legendre(order: int, window: float) -> tuple[np.ndarray, np.ndarray]:
  """The step of a linear memory whose states are Legendre coefficients of the last inputs.

  From "Legendre Memory Units" (Voelker et al., 2019), section 2, discretised bilinearly.
  """
  rows = 2 * np.arange(order)[:, None] + 1
  row, column = np.indices((order, order))
  slope = rows / window * np.where(row < column, -1.0, (-1.0) ** (row - column + 1))
  drive = rows / window * (-1.0) ** np.arange(order)[:, None]
  inverse = np.linalg.inv(np.eye(order) - slope / 2)
  transition = inverse @ (np.eye(order) + slope / 2)
  return transition.T.astype(np.float32), (inverse @ drive)[:, 0].astype(np.float32)


def _legendre_memory(batch: int, steps: int, channels: int, order: int, width: int
                     ) -> blocks.Model:
  """Each channel has a fixed linear memory of its past; a plain cell drives and reads it."""
  def forward(w: blocks.Weights, x: jax.Array, transition: jax.Array, drive: jax.Array
              ) -> jax.Array:
    projected = blocks.linear(w, x, width)
    write, recur = w.kernel(width, channels), w.kernel(width, width)
    read = w.kernel(channels, order, width)
    state, memory = jnp.zeros((batch, width)), jnp.zeros((batch, channels, order))
    states = []
    for step in range(steps):
      entered = (state + projected[:, step]) @ write
      memory = jnp.einsum("bco,op->bcp", memory, transition) + entered[:, :, None] * drive
      state = jnp.tanh(projected[:, step] + state @ recur
                       + jnp.einsum("bco,cow->bw", memory, read))
      states.append(state)
    return blocks.linear(w, jnp.stack(states, axis=1), 16)
  return blocks.Model(forward, lambda rng: [
      rng.standard_normal((batch, steps, INPUTS)).astype(np.float32),
      *_legendre(order, 2.0 * steps)])


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "clockwork": _clockwork, "tree_lstm": _tree_lstm, "fast_weights": _fast_weights,
    "stack_augmented": _stack_augmented, "legendre_memory": _legendre_memory}
