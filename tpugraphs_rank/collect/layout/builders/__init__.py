"""The model families of the layout collector, in JAX.

This package imports JAX, so only measuring processes may import it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout.builders import attention
from tpugraphs_rank.collect.layout.builders import attention_variants
from tpugraphs_rank.collect.layout.builders import blocks
from tpugraphs_rank.collect.layout.builders import convolutional
from tpugraphs_rank.collect.layout.builders import dense
from tpugraphs_rank.collect.layout.builders import graphs
from tpugraphs_rank.collect.layout.builders import layers
from tpugraphs_rank.collect.layout.builders import memories
from tpugraphs_rank.collect.layout.builders import recurrent
from tpugraphs_rank.collect.layout.builders import science
from tpugraphs_rank.collect.layout.builders import sequence
from tpugraphs_rank.collect.layout.builders import structured_graphs
from tpugraphs_rank.collect.layout.builders import vision

BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    **convolutional.BUILDERS, **attention.BUILDERS, **dense.BUILDERS, **recurrent.BUILDERS,
    **graphs.BUILDERS, **science.BUILDERS, **vision.BUILDERS, **structured_graphs.BUILDERS,
    **sequence.BUILDERS, **memories.BUILDERS, **attention_variants.BUILDERS, **layers.BUILDERS}
LEARNING_RATE = 0.1


def build(program: catalogue.ModelProgram, rng: np.random.Generator
          ) -> tuple[Callable[..., list[jax.Array]], list[np.ndarray]]:
  """A program as a pure function of arrays, with its arguments.

  Args:
    program: a program of the catalogue.
    rng: draws weights, inputs and, for training, targets.

  Returns:
    The function (forward: the model's output; training: the loss, and all weights after one step
    of gradient descent on the squared error) and its arguments, weights first.
  """
  model = BUILDERS[program.family](*program.shape)
  data = model.inputs(rng)
  drawing = blocks.Weights(rng=rng)
  output = jax.eval_shape(lambda: model.forward(drawing, *map(jnp.asarray, data)))
  weights = drawing.arrays
  count = len(weights)

  def forward(*arguments: jax.Array) -> list[jax.Array]:
    return [model.forward(blocks.Weights(list(arguments[:count])), *arguments[count:])]

  def training(*arguments: jax.Array) -> list[jax.Array]:
    *inputs, target = arguments[count:]

    def loss(current: list[jax.Array]) -> jax.Array:
      return jnp.mean(jnp.square(model.forward(blocks.Weights(current), *inputs) - target))

    value, gradients = jax.value_and_grad(loss)(list(arguments[:count]))
    return [value, *(weight - LEARNING_RATE * gradient
                     for weight, gradient in zip(arguments[:count], gradients))]

  if program.mode == "forward":
    return forward, [*weights, *data]
  target = rng.standard_normal(output.shape).astype(np.float32)
  return training, [*weights, *data, target]
