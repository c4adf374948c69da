"""Families of recurrent cells, unrolled over a few steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tpugraphs_rank.collect.layout.builders import blocks

INPUTS = 32
sigmoid = jax.nn.sigmoid


def _steps(x: jax.Array) -> list[jax.Array]:
  """The steps of a sequence: (batch, steps, width) -> a list of (batch, width)."""
  return [x[:, index] for index in range(x.shape[1])]


def _lstm(batch: int, steps: int, width: int) -> blocks.Model:
  """An LSTM that computes all gates by one product with the concatenated input and state."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    kernel, bias = w.kernel(INPUTS + width, 4 * width), w.shift(4 * width)
    state = cell = jnp.zeros((batch, width))
    states = []
    for step in _steps(x):
      gates = jnp.concatenate([step, state], axis=1) @ kernel + bias
      enter, forget, output, change = jnp.split(gates, 4, axis=1)
      cell = sigmoid(forget) * cell + sigmoid(enter) * jnp.tanh(change)
      state = sigmoid(output) * jnp.tanh(cell)
      states.append(state)
    return blocks.linear(w, jnp.stack(states, axis=1), 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _peephole(batch: int, steps: int, width: int) -> blocks.Model:
  """An LSTM whose gates read the cell; one product projects the inputs of all steps."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    projected = blocks.linear(w, x, 4 * width).reshape(batch, steps, 4, width)
    kernel = w.kernel(width, 4 * width)
    peeps = [w.shift(width) for _ in range(3)]
    state = cell = jnp.zeros((batch, width))
    for step in _steps(projected):
      gates = step + (state @ kernel).reshape(batch, 4, width)
      forget = sigmoid(gates[:, 0] + peeps[0] * cell)
      enter = sigmoid(gates[:, 1] + peeps[1] * cell)
      cell = forget * cell + enter * jnp.tanh(gates[:, 2])
      state = sigmoid(gates[:, 3] + peeps[2] * cell) * jnp.tanh(cell)
    return blocks.linear(w, state, 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _bidirectional(batch: int, steps: int, width: int) -> blocks.Model:
  """Plain cells in both directions, with concatenated states."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    directions = []
    for backwards in (False, True):
      enter, recur, bias = w.kernel(INPUTS, width), w.kernel(width, width), w.shift(width)
      state, states = jnp.zeros((batch, width)), []
      for step in reversed(_steps(x)) if backwards else _steps(x):
        state = jnp.tanh(step @ enter + state @ recur + bias)
        states.append(state)
      directions.append(jnp.stack(states[::-1] if backwards else states, axis=1))
    return blocks.linear(w, jnp.concatenate(directions, axis=-1), 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _gru(batch: int, steps: int, width: int) -> blocks.Model:
  """Gated recurrent units; one product projects the inputs of all steps."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    projected = blocks.linear(w, x, 3 * width)
    gate_kernel, kernel = w.kernel(width, 2 * width), w.kernel(width, width)
    state, states = jnp.zeros((batch, width)), []
    for step in _steps(projected):
      gates = sigmoid(step[:, :2 * width] + state @ gate_kernel)
      update, reset = jnp.split(gates, 2, axis=1)
      change = jnp.tanh(step[:, 2 * width:] + (reset * state) @ kernel)
      state = update * state + (1 - update) * change
      states.append(state)
    return blocks.linear(w, jnp.stack(states, axis=1), 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _minimal_gated(batch: int, steps: int, width: int) -> blocks.Model:
  """Two layers of cells with one gate, which both forgets and resets."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    sequence = _steps(x)
    for size in (INPUTS, width):
      gate_kernel, kernel = w.kernel(size + width, width), w.kernel(size + width, width)
      state, states = jnp.zeros((batch, width)), []
      for step in sequence:
        gate = sigmoid(jnp.concatenate([step, state], axis=1) @ gate_kernel)
        change = jnp.tanh(jnp.concatenate([step, gate * state], axis=1) @ kernel)
        state = (1 - gate) * state + gate * change
        states.append(state)
      sequence = states
    return blocks.linear(w, state, 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _differential(batch: int, width: int, steps: int) -> blocks.Model:
  """A neural differential equation, solved by the fourth-order Runge-Kutta method."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    outer, inner, shift = w.kernel(width, width), w.kernel(width, width), w.shift(width)
    slope = lambda y: jnp.tanh(y @ outer + shift) @ inner
    for _ in range(steps):
      first = slope(x)
      second = slope(x + 0.1 * first)
      third = slope(x + 0.1 * second)
      last = slope(x + 0.2 * third)
      x = x + (first + 2 * second + 2 * third + last) / 30
    return blocks.linear(w, x, 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, width)))


def _quasi_recurrent(batch: int, steps: int, width: int) -> blocks.Model:
  """Gates from a convolution over the steps; the recurrence itself is elementwise."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(2):
      gates = blocks.convolve(w, x, 3 * width, size=2)
      value, forget, output = jnp.split(gates, 3, axis=-1)
      value, forget, output = jnp.tanh(value), sigmoid(forget), sigmoid(output)
      state, states = jnp.zeros((batch, width)), []
      for index in range(steps):
        state = forget[:, index] * state + (1 - forget[:, index]) * value[:, index]
        states.append(output[:, index] * state)
      x = jnp.stack(states, axis=1)
    return blocks.linear(w, x, 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _state_space(batch: int, steps: int, width: int, states: int) -> blocks.Model:
  """Linear states of each channel; projections of the step determine input, damping and output."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    projected = blocks.linear(w, x, width)
    drive, read = blocks.linear(w, projected, states), blocks.linear(w, projected, states)
    damping = sigmoid(blocks.linear(w, projected, width))
    state, outputs = jnp.zeros((batch, width, states)), []
    for index in range(steps):
      enter = jnp.einsum("bw,bs->bws", projected[:, index], drive[:, index])
      state = damping[:, index, :, None] * state + enter
      outputs.append(jnp.einsum("bws,bs->bw", state, read[:, index]))
    y = jnp.stack(outputs, axis=1) * jax.nn.silu(blocks.linear(w, x, width))
    return blocks.linear(w, y, 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, INPUTS)))


def _convolutional_lstm(batch: int, steps: int, side: int, channels: int) -> blocks.Model:
  """An LSTM over images, with convolutions instead of products."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    kernel, shift = w.kernel(3, 3, 3 + channels, 4 * channels), w.shift(4 * channels)
    state = cell = jnp.zeros((batch, side, side, channels))
    for step in _steps(x):
      gates = jax.lax.conv_general_dilated(
          jnp.concatenate([step, state], axis=-1), kernel, (1, 1), "SAME",
          dimension_numbers=("NHWC", "HWIO", "NHWC")) + shift
      enter, forget, output, change = jnp.split(gates, 4, axis=-1)
      cell = sigmoid(forget) * cell + sigmoid(enter) * jnp.tanh(change)
      state = sigmoid(output) * jnp.tanh(cell)
    return blocks.convolve(w, state, 3, size=1)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, side, side, 3)))


def _attentive(batch: int, memory: int, steps: int, width: int) -> blocks.Model:
  """A recurrent cell that attends to a memory before each step."""
  def forward(w: blocks.Weights, x: jax.Array, start: jax.Array) -> jax.Array:
    keys = blocks.linear(w, x, width)
    ask, enter, recur = (w.kernel(width, width) for _ in range(3))
    state, states = start, []
    for _ in range(steps):
      weights = jax.nn.softmax(jnp.einsum("bmw,bw->bm", keys, state @ ask))
      context = jnp.einsum("bm,bmw->bw", weights, x)
      state = jnp.tanh(context @ enter + state @ recur)
      states.append(state)
    return blocks.linear(w, jnp.stack(states, axis=1), 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, memory, width), (batch, width)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "lstm": _lstm, "peephole": _peephole, "bidirectional": _bidirectional, "gru": _gru,
    "minimal_gated": _minimal_gated, "differential": _differential,
    "quasi_recurrent": _quasi_recurrent, "state_space": _state_space,
    "convolutional_lstm": _convolutional_lstm, "attentive": _attentive}
