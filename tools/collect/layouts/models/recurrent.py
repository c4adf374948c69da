"""Families of recurrent cells, unrolled over a few steps."""

from typing import Callable, Dict, List

import jax
import jax.numpy as jnp

from tools.collect.layouts.models import blocks

INPUTS = 32
sigmoid = jax.nn.sigmoid


def _steps(x: jax.Array) -> List[jax.Array]:
  """The steps of a sequence (batch, steps, width), (batch, width) each."""
  return [x[:, index] for index in range(x.shape[1])]


def _lstm(batch: int, steps: int, width: int) -> blocks.Model:
  """One product for the four gates, of input and state side by side."""
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
  """An LSTM whose gates see the cell, and whose inputs are projected for all steps at once."""
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
  """Plain cells in both directions, their states side by side."""
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
  """Gated recurrent units; the input's part of all steps is one product."""
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


BUILDERS: Dict[str, Callable[..., blocks.Model]] = {
    "lstm": _lstm, "peephole": _peephole, "bidirectional": _bidirectional, "gru": _gru}
