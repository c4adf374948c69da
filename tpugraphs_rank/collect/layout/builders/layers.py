"""Families of structured layers: factorised matrices, trees, splines, mixtures, fused inputs."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks


def _tensor_train(rows: int, side: int, rank: int, layers: int) -> blocks.Model:
  """Matrices between vectors of three axes, as products of one small core per axis."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = jnp.einsum("nabc,aur->nbcur", x, w.kernel(side, side, rank) * math.sqrt(side))
      y = jnp.einsum("nbcur,rbvs->ncuvs", y, w.kernel(rank, side, side, rank) * math.sqrt(side))
      y = jnp.einsum("ncuvs,sct->nuvt", y, w.kernel(rank, side, side))
      x = x + jax.nn.gelu(blocks.layer_norm(w, y))
    return blocks.linear(w, x.reshape(rows, side ** 3), 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, side, side, side)))


def _kronecker(rows: int, left: int, right: int, terms: int, layers: int) -> blocks.Model:
  """Matrices that are sums of Kronecker products: one factor per axis of the features."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = jnp.einsum("nlr,tlm->ntmr", x, w.experts(terms, left, left))
      y = jnp.einsum("ntmr,trs->nms", y, w.experts(terms, right, right)) / math.sqrt(terms)
      flat = blocks.layer_norm(w, y.reshape(rows, left * right))
      x = x + jax.nn.gelu(flat).reshape(rows, left, right)
    return blocks.linear(w, x.reshape(rows, left * right), 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, left, right)))


def _butterfly(rows: int, levels: int, layers: int) -> blocks.Model:
  """Dense matrices as stages, each of which mixes pairs of features at twice the distance."""
  width = 2 ** levels

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = x
      for level in range(levels):
        groups, distance = width >> (level + 1), 1 << level
        pairs = y.reshape(rows, groups, 1, 2, distance)
        y = (pairs * w.experts(groups, 2, 2, distance)).sum(3)
      x = x + jax.nn.relu(blocks.layer_norm(w, y.reshape(rows, width)))
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _variable_selection(rows: int, variables: int, width: int) -> blocks.Model:
  """A gated residual net per variable, weighted by a net of all of them; then a static context."""
  def gated(w: blocks.Weights, x: jax.Array, y: jax.Array) -> jax.Array:
    value, gate = jnp.split(y, 2, axis=-1)
    return blocks.layer_norm(w, x + value * jax.nn.sigmoid(gate))

  def forward(w: blocks.Weights, x: jax.Array, context: jax.Array) -> jax.Array:
    every = x[:, :, None] * w.experts(variables, 1, width)[:, 0]
    hidden = jax.nn.elu(blocks.linear(w, every.reshape(rows, variables * width), width))
    shares = jax.nn.softmax(blocks.linear(w, hidden, variables))
    y = jax.nn.elu(jnp.einsum("rvw,vwu->rvu", every, w.experts(variables, width, width)))
    y = jnp.einsum("rvw,vwu->rvu", y, w.experts(variables, width, 2 * width))
    chosen = jnp.einsum("rv,rvw->rw", shares, gated(w, every, y))
    y = jax.nn.elu(blocks.linear(w, chosen, width) + blocks.linear(w, context, width))
    return blocks.linear(w, gated(w, chosen, blocks.linear(w, y, 2 * width)), 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, variables), (rows, width)))


def _neural_additive(rows: int, features: int, width: int, outputs: int) -> blocks.Model:
  """A small net for each feature, with exponential units; the output is the sum of them all."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    scale, centre = (w.experts(features, 1, width)[:, 0] for _ in range(2))
    y = jax.nn.relu((x[:, :, None] - centre) * jnp.exp(scale / 2))
    for _ in range(3):
      y = jnp.einsum("rfw,fwu->rfu", y, w.experts(features, width, width))
      y = jax.nn.relu(y + w.shift(width))
    parts = jnp.einsum("rfw,fwo->rfo", y, w.experts(features, width, outputs))
    parts = parts - parts.mean(0)
    return parts.sum(1) + w.shift(outputs)
  return blocks.Model(forward, blocks.normal_inputs((rows, features)))


def _mixture_of_softmaxes(batch: int, length: int, width: int, mixtures: int, words: int
                          ) -> blocks.Model:
  """The logarithm of a weighted mean of softmaxes over words, one for each of several contexts."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    shares = jax.nn.softmax(blocks.linear(w, x, mixtures))
    contexts = jnp.tanh(blocks.linear(w, x, mixtures * width))
    contexts = contexts.reshape(batch, length, mixtures, width)
    logits = jnp.einsum("blmw,wv->blmv", contexts, w.kernel(width, words)) + w.shift(words)
    chances = jnp.einsum("blm,blmv->blv", shares, jax.nn.softmax(logits))
    return jnp.log(chances + 1e-6)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _product_key_memory(rows: int, heads: int, keys: int, size: int) -> blocks.Model:
  """Values for all pairs of two sets of keys; the score of a pair is the sum of two products."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    width = heads * size
    query = blocks.batch_norm(w, x @ w.kernel(width, 2 * width))
    query = query.reshape(rows, heads, 2, size)
    scores = jnp.einsum("rhps,hpks->rhpk", query,
                        w.kernel(heads, 2, keys, size) * math.sqrt(2 * keys * heads / size))
    pairs = scores[:, :, 0, :, None] + scores[:, :, 1, None, :]
    weights = jax.nn.softmax(pairs.reshape(rows, heads, keys * keys))
    read = jnp.einsum("rhk,ks->rhs", weights, w.experts(keys * keys, 1, size)[:, 0])
    y = x + blocks.linear(w, read.reshape(rows, width), width)
    return blocks.linear(w, jax.nn.gelu(blocks.layer_norm(w, y)), 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, heads * size)))


def _oblivious_trees(rows: int, features: int, trees: int, depth: int) -> blocks.Model:
  """Soft decision trees with one threshold per level, in two layers; leaves are outer products."""
  def layer(w: blocks.Weights, x: jax.Array) -> jax.Array:
    choice = jax.nn.softmax(2 * w.experts(x.shape[1], 1, trees * depth)[:, 0], axis=0)
    levels = (x @ choice).reshape(rows, trees, depth)
    right = jax.nn.sigmoid((levels - w.shift(depth)) * 4 * w.scale(depth))
    sides = jnp.stack([right, 1 - right], axis=-1)
    leaves = sides[:, :, 0]
    for level in range(1, depth):
      leaves = (leaves[..., None] * sides[:, :, level, None]).reshape(rows, trees, -1)
    return jnp.einsum("rtl,tlo->rto", leaves, w.experts(trees, 2 ** depth, 4) * 2 ** (depth / 2))

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.batch_norm(w, x)
    first = layer(w, x)
    second = layer(w, jnp.concatenate([x, first.reshape(rows, trees * 4)], axis=1))
    return jnp.concatenate([first, second], axis=1).mean(1)
  return blocks.Model(forward, blocks.normal_inputs((rows, features)))


def _kolmogorov_arnold(rows: int, width: int, grid: int, layers: int) -> blocks.Model:
  """A learned quadratic spline for every pair of an input and an output, and a plain layer."""
  step = 2 / (grid - 1)
  knots = np.linspace(-1 - step, 1 + step, grid + 2).astype(np.float32)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      inside = jnp.tanh(x)[..., None]
      hats = jax.nn.relu(1 - jnp.abs(inside - knots[1:-1]) / step)
      rising = (inside - knots[:-3]) / (2 * step) * hats[..., :-1]
      falling = (knots[3:] - inside) / (2 * step) * hats[..., 1:]
      splines = w.kernel(width, grid - 1, width) * 2
      x = jnp.einsum("rig,igo->ro", rising + falling, splines) + blocks.linear(
          w, jax.nn.silu(x), width)
      x = blocks.layer_norm(w, x)
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _quaternion(rows: int, width: int, layers: int) -> blocks.Model:
  """Features are quaternions; a matrix is put together from four parts and their negatives."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      a, b, c, d = (w.kernel(width, width) / 2 for _ in range(4))
      matrix = jnp.concatenate([
          jnp.concatenate(parts, axis=1) for parts in (
              (a, b, c, d), (-b, a, -d, c), (-c, d, a, -b), (-d, -c, b, a))], axis=0)
      y = x.reshape(rows, 4 * width) @ matrix + w.shift(4 * width)
      y = y.reshape(rows, 4, width)
      length = jnp.sqrt(jnp.square(y).sum(1, keepdims=True) + 1e-3)
      x = x + y * jax.nn.relu(length - w.scale(width) / 2) / length
    return blocks.linear(w, x.transpose(0, 2, 1).reshape(rows, 4 * width), 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, 4, width)))


def _bilinear_fusion(batch: int, regions: int, width: int, rank: int, size: int) -> blocks.Model:
  """A question and the regions of an image: low-rank products, two glimpses, a trilinear core."""
  def forward(w: blocks.Weights, x: jax.Array, question: jax.Array) -> jax.Array:
    seen = jnp.tanh(blocks.linear(w, x, rank * size)).reshape(batch, regions, rank, size)
    asked = jnp.tanh(blocks.linear(w, question, rank * size)).reshape(batch, 1, rank, size)
    scores = blocks.linear(w, (seen * asked).sum(2), 2)
    glimpses = jnp.einsum("brg,brw->bgw", jax.nn.softmax(scores, axis=1), x)
    seen = jnp.tanh(blocks.linear(w, glimpses.reshape(batch, 2 * width), size))
    asked = jnp.tanh(blocks.linear(w, question, size))
    core = jnp.einsum("bs,stu->btu", asked, w.kernel(size, size, size) * math.sqrt(size))
    fused = jnp.einsum("btu,bt->bu", core, seen)
    return blocks.linear(w, jax.nn.relu(blocks.layer_norm(w, fused)), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, regions, width), (batch, width)))


def _late_interaction(rows: int, words: int, tokens: int, width: int) -> blocks.Model:
  """Two towers with common weights; sums of best products of tokens, contrasted over all pairs."""
  def forward(w: blocks.Weights, x: jax.Array, y: jax.Array) -> jax.Array:
    outer, inner, shift = w.kernel(width, 2 * width), w.kernel(2 * width, width), w.shift(width)

    def tower(z: jax.Array) -> jax.Array:
      z = z + jax.nn.gelu(z @ outer) @ inner + shift
      return z * jax.lax.rsqrt(jnp.square(z).sum(-1, keepdims=True) + 1e-3)

    products = jnp.einsum("qtw,dsw->qtds", tower(x), tower(y))
    scores = products.max(3).sum(1) * jnp.exp(w.shift(1))
    return jax.nn.log_softmax(scores, axis=0) + jax.nn.log_softmax(scores, axis=1)
  return blocks.Model(forward, blocks.normal_inputs((rows, words, width), (rows, tokens, width)))


def _n_beats(batch: int, series: int, history: int, horizon: int, width: int) -> blocks.Model:
  """Stacks that explain and subtract a part of a history, by polynomials and by waves in turn."""
  times = (np.arange(history + horizon) - history) / (history + horizon)
  trend = times ** np.arange(4)[:, None]
  turns = 2 * math.pi * times * np.arange(1, 7)[:, None]
  waves = np.concatenate([np.cos(turns), np.sin(turns)])

  def forward(w: blocks.Weights, x: jax.Array, trend: jax.Array, waves: jax.Array) -> jax.Array:
    forecast = w.shift(horizon)
    for basis in (trend, waves, trend, waves):
      y = x
      for _ in range(2):
        y = jax.nn.relu(blocks.linear(w, y, width))
      explained = (y @ w.kernel(width, basis.shape[0])) @ basis
      x = x - explained[..., :history]
      forecast = forecast + explained[..., history:]
    return forecast
  return blocks.Model(forward, lambda rng: [
      rng.standard_normal((batch, series, history)).astype(np.float32),
      trend.astype(np.float32), waves.astype(np.float32)])


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "tensor_train": _tensor_train, "kronecker": _kronecker, "butterfly": _butterfly,
    "variable_selection": _variable_selection, "neural_additive": _neural_additive,
    "mixture_of_softmaxes": _mixture_of_softmaxes, "product_key_memory": _product_key_memory,
    "oblivious_trees": _oblivious_trees, "kolmogorov_arnold": _kolmogorov_arnold,
    "quaternion": _quaternion, "bilinear_fusion": _bilinear_fusion,
    "late_interaction": _late_interaction, "n_beats": _n_beats}
