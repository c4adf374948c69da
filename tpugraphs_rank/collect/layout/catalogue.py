"""The programs of the layout collector: families, shapes, and the split of each family.

This module needs no JAX; `builders` has the programs themselves.
"""

from collections.abc import Iterable
import dataclasses
import re

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.collect.common import plans

MODES = ("forward", "training")


@dataclasses.dataclass(frozen=True)
class Family:
  """One model family.

  Attributes:
    group: the kind of model.
    split: the split of all of its programs, so that no family is both trained and tested on.
    axes: the meaning of the numbers of a shape, in order.
    shapes: `<numbers>:<modes>`, separated by spaces.
  """

  group: str
  split: str
  axes: str
  shapes: str


# Valid and test have families of every kind of model, and none of them is trained on. This was
# fixed before anything was measured. The shapes were not: convolutions with many channels hide the
# cost of copies, so the later shapes of convolutional nets have few channels.
FAMILIES: dict[str, Family] = {
    # Convolutions.
    "resnet": Family(
        "convolution", "train", "batch side channels blocks",
        "2x32x16x2:forward 1x64x8x2:forward 1x32x24x1:training 2x32x8x1:training"),
    "separable": Family(
        "convolution", "train", "batch side channels blocks",
        "1x24x32x2:forward 1x64x8x2:forward 1x24x16x1:training 1x32x8x1:training"),
    "densenet": Family(
        "convolution", "train", "batch side growth layers",
        "1x40x12x4:forward 1x64x4x4:forward 1x24x8x3:training 1x32x4x3:training"),
    "convolution_1d": Family(
        "convolution", "train", "batch length channels blocks",
        "4x256x32x3:forward 2x512x24x4:forward 2x512x16x1:training 2x256x24x2:training"),
    "conv_autoencoder": Family(
        "convolution", "train", "batch side channels depth",
        "2x48x16x2:forward 2x64x4x2:forward 1x32x16x1:training 2x32x4x1:training"),
    "bottleneck": Family(
        "convolution", "valid", "batch side channels blocks",
        "2x24x48x2:forward 1x48x32x2:forward 1x32x32x1:training 1x40x16x1:training"),
    "unet": Family(
        "convolution", "test", "batch side channels depth",
        "1x48x12x2:forward 1x64x6x2:forward 1x48x6x1:training 1x32x4x2:training"),
    "squeeze_excite": Family(
        "convolution", "test", "batch side channels blocks",
        "2x40x16x2:forward 1x64x8x3:forward 1x32x16x1:training 1x40x8x1:training"),
    "inception": Family(
        "convolution", "train", "batch side channels blocks",
        "1x32x8x2:forward 2x24x12x1:forward 1x24x8x1:training 1x32x4x1:training"),
    "channel_shuffle": Family(
        "convolution", "train", "batch side channels blocks",
        "2x32x16x2:forward 1x48x8x3:forward 1x32x8x1:training 2x24x12x1:training"),
    "patch_convolution": Family(
        "convolution", "train", "batch side channels blocks",
        "2x64x32x2:forward 1x96x24x2:forward 2x48x24x1:training 1x64x32x1:training"),
    "gated_convolution_1d": Family(
        "convolution", "train", "batch length channels blocks",
        "4x256x16x3:forward 2x512x24x2:forward 2x256x16x2:training 4x128x24x1:training"),
    "fire": Family(
        "convolution", "valid", "batch side channels blocks",
        "2x48x16x2:forward 1x64x24x2:forward 1x48x16x1:training 2x32x16x1:training"),
    "super_resolution": Family(
        "convolution", "test", "batch side channels blocks",
        "1x48x8x2:forward 2x32x12x1:forward 1x32x8x1:training 1x40x4x1:training"),
    "non_local": Family(
        "convolution", "test", "batch side channels blocks",
        "2x32x16x1:forward 1x40x16x2:forward 2x24x16x1:training 1x32x12x1:training"),
    # Attention.
    "encoder": Family(
        "attention", "train", "batch length width heads layers",
        "4x96x96x4x1:forward 2x128x64x8x2:forward 4x64x64x4x1:training 2x64x96x6x1:training"),
    "decoder": Family(
        "attention", "test", "batch length memory width heads",
        "4x96x128x64x4:forward 2x128x96x96x8:forward 4x64x48x64x4:training 2x64x96x48x4:training"),
    "vision_transformer": Family(
        "attention", "train", "batch side patch width heads",
        "4x64x8x64x4:forward 8x32x4x64x4:forward 4x32x4x48x2:training 2x48x4x64x4:training"),
    "multi_query": Family(
        "attention", "valid", "batch length width heads layers",
        "4x96x96x4x1:forward 2x128x64x8x2:forward 4x64x64x4x1:training 2x96x48x6x1:training"),
    "linear_attention": Family(
        "attention", "train", "batch length width heads layers",
        "4x192x64x4x1:forward 2x256x64x8x2:forward 4x96x64x4x1:training 2x128x96x4x1:training"),
    "talking_heads": Family(
        "attention", "train", "batch length width heads layers",
        "4x64x64x4x1:forward 2x96x64x8x2:forward 2x64x48x4x1:training 2x48x64x8x1:training"),
    "window_attention": Family(
        "attention", "train", "batch side window width heads",
        "2x24x6x48x4:forward 2x32x8x32x2:forward 2x16x4x48x4:training 1x24x6x32x4:training"),
    "axial_attention": Family(
        "attention", "train", "batch side width heads layers",
        "2x20x48x4x1:forward 1x24x32x4x2:forward 2x16x32x4x1:training 1x20x48x6x1:training"),
    "projected_attention": Family(
        "attention", "train", "batch length short width heads",
        "4x192x32x64x4:forward 2x320x48x64x8:forward 2x160x32x64x4:training 4x96x24x48x4:training"),
    "grouped_query": Family(
        "attention", "valid", "batch length width heads groups",
        "4x96x96x6x2:forward 2x128x128x8x4:forward 2x96x64x8x2:training 4x64x72x6x3:training"),
    "latent_attention": Family(
        "attention", "test", "batch length latents width heads",
        "4x256x32x64x4:forward 2x384x48x96x6:forward 2x192x24x64x4:training "
        "4x128x16x48x4:training"),
    "relative_attention": Family(
        "attention", "test", "batch length width heads layers",
        "4x80x64x4x1:forward 2x112x96x6x1:forward 2x80x64x4x1:training 4x48x48x4x1:training"),
    # Dense layers.
    "mlp_layer_norm": Family(
        "dense", "train", "rows width layers",
        "256x160x4:forward 384x128x5:forward 128x160x2:training 192x192x2:training"),
    "mlp_batch_norm": Family(
        "dense", "train", "rows width layers",
        "384x160x4:forward 512x128x4:forward 256x160x2:training 192x192x3:training"),
    "autoencoder": Family(
        "dense", "valid", "rows width code",
        "384x256x32:forward 512x192x24:forward 192x256x32:training 256x192x48:training"),
    "mixer": Family(
        "dense", "train", "batch tokens width layers",
        "8x64x64x2:forward 4x128x64x2:forward 4x64x64x1:training 8x48x48x1:training"),
    "gated_mlp": Family(
        "dense", "test", "batch tokens width layers",
        "8x64x64x2:forward 4x128x48x2:forward 8x64x48x1:training 4x128x64x1:training"),
    "experts": Family(
        "dense", "train", "rows width experts",
        "256x64x4:forward 192x96x6:forward 192x64x4:training 256x48x6:training"),
    "highway": Family(
        "dense", "train", "rows width layers",
        "256x160x3:forward 384x112x4:forward 192x144x2:training 256x96x3:training"),
    "low_rank": Family(
        "dense", "train", "rows width rank layers",
        "384x192x24x3:forward 512x128x16x4:forward 256x160x16x2:training 320x96x12x3:training"),
    "cross_network": Family(
        "dense", "train", "rows width layers",
        "320x128x3:forward 512x96x3:forward 256x112x2:training 192x144x2:training"),
    "block_diagonal": Family(
        "dense", "train", "rows parts size layers",
        "384x8x24x3:forward 512x6x32x2:forward 256x8x20x2:training 320x4x32x2:training"),
    "variational": Family(
        "dense", "valid", "rows width code",
        "448x256x24:forward 640x160x32:forward 256x224x16:training 320x160x24:training"),
    "interaction_features": Family(
        "dense", "test", "rows fields width",
        "256x16x32:forward 384x12x48:forward 192x14x32:training 256x10x40:training"),
    "hypernetwork": Family(
        "dense", "test", "batch tokens width rank",
        "8x96x64x16:forward 6x128x80x8:forward 8x64x64x8:training 4x96x48x16:training"),
    "capsules": Family(
        "dense", "test", "batch inputs outputs size",
        "16x48x10x12:forward 24x32x8x16:forward 16x32x8x8:training 12x40x6x12:training"),
    # Recurrent cells, unrolled.
    "lstm": Family(
        "recurrent", "train", "batch steps width",
        "64x6x96:forward 96x5x64:forward 64x3x96:training 128x4x48:training"),
    "peephole": Family(
        "recurrent", "train", "batch steps width",
        "96x5x64:forward 64x4x96:forward 64x3x64:training 96x3x48:training"),
    "bidirectional": Family(
        "recurrent", "valid", "batch steps width",
        "96x5x96:forward 64x6x128:forward 96x3x64:training 64x4x96:training"),
    "gru": Family(
        "recurrent", "test", "batch steps width",
        "96x5x96:forward 128x4x64:forward 64x3x96:training 96x4x64:training"),
    "minimal_gated": Family(
        "recurrent", "train", "batch steps width",
        "96x4x80:forward 64x5x112:forward 64x3x80:training 96x2x64:training"),
    "differential": Family(
        "recurrent", "train", "batch width steps",
        "192x128x2:forward 256x96x3:forward 128x112x1:training 192x80x2:training"),
    "quasi_recurrent": Family(
        "recurrent", "train", "batch steps width",
        "64x8x64:forward 96x6x48:forward 64x5x48:training 48x6x64:training"),
    "state_space": Family(
        "recurrent", "valid", "batch steps width states",
        "48x6x64x16:forward 64x8x48x8:forward 48x4x48x12:training 32x5x64x16:training"),
    "convolutional_lstm": Family(
        "recurrent", "test", "batch steps side channels",
        "1x3x32x6:forward 2x2x24x8:forward 1x2x24x6:training 1x2x32x4:training"),
    "attentive": Family(
        "recurrent", "test", "batch memory steps width",
        "48x48x4x64:forward 64x32x5x80:forward 48x32x3x64:training 32x40x3x80:training"),
    # Graph networks.
    "graph_convolution": Family(
        "graph", "train", "graphs nodes width layers",
        "8x64x64x3:forward 4x128x64x3:forward 4x64x64x2:training 8x48x64x2:training"),
    "message_passing": Family(
        "graph", "train", "nodes edges width layers",
        "256x1024x48x2:forward 192x1024x64x2:forward 192x768x32x1:training 256x512x48x1:training"),
    "graph_attention": Family(
        "graph", "test", "graphs nodes width heads layers",
        "4x96x48x4x2:forward 2x128x64x4x2:forward 4x64x48x4x1:training 8x48x32x2x1:training"),
    "isomorphism": Family(
        "graph", "train", "graphs nodes width layers",
        "8x64x64x2:forward 4x112x48x3:forward 4x64x48x2:training 6x48x64x2:training"),
    "relational": Family(
        "graph", "train", "graphs nodes relations width layers",
        "4x64x4x48x2:forward 2x96x3x64x2:forward 4x48x3x48x1:training 2x64x4x32x2:training"),
    "edge_convolution": Family(
        "graph", "train", "graphs nodes width layers",
        "2x48x32x2:forward 4x32x48x2:forward 2x32x32x1:training 3x40x24x1:training"),
    "equivariant": Family(
        "graph", "valid", "graphs nodes width layers",
        "2x40x32x1:forward 4x32x24x2:forward 2x32x24x1:training 3x24x32x1:training"),
    "graph_transformer": Family(
        "graph", "test", "graphs nodes width heads layers",
        "4x80x64x4x1:forward 6x64x48x4x2:forward 4x48x48x4x1:training 2x80x64x8x1:training"),
    "interaction_network": Family(
        "graph", "test", "graphs nodes width layers",
        "2x48x32x1:forward 4x32x24x2:forward 2x32x24x1:training 3x24x32x1:training"),
}


@dataclasses.dataclass(frozen=True)
class ModelProgram:
  """One program of a family.

  Attributes:
    family: a key of `FAMILIES`.
    shape: the numbers of the family, see `Family.axes`.
    mode: `forward` (the outputs) or `training` (the loss, and all weights after one step).
  """

  family: str
  shape: tuple[int, ...]
  mode: str

  @property
  def stem(self) -> str:
    """The name of the program and of its files."""
    return f"{self.family}.{'x'.join(map(str, self.shape))}.{self.mode}"

  @property
  def definition(self) -> Family:
    return FAMILIES[self.family]


def parse_stem(stem: str) -> ModelProgram:
  """The program with this name.

  Raises:
    UnknownNameError: the name does not have the form `<family>.<numbers>.<mode>`, or the family is
      unknown.
  """
  match = re.fullmatch(r"(\w+)\.(\d+(?:x\d+)*)\.(\w+)", stem)
  program = match and ModelProgram(match[1], tuple(map(int, match[2].split("x"))), match[3])
  if program is None or program.family not in FAMILIES or program.mode not in MODES or (
      len(program.shape) != len(program.definition.axes.split())):
    raise errors.UnknownNameError(
        f"no program {stem!r}; expected <family>.<numbers>.<mode>, such as "
        "resnet.1x24x16x2.forward; tpugraphs_rank/collect/layout/catalogue.py lists the families "
        "and their numbers")
  return program


def programs(families: Iterable[str] | None = None, count: int | None = None,
             seed: int = 0) -> list[ModelProgram]:
  """The catalogue: the first programs of all families in a random order, then the second ones, ...

  A collection that ends early therefore lacks some sizes, but no family.

  Args:
    families: only these families; None: all.
    count: maximum number of programs; None: all.
    seed: seed of the order.

  Raises:
    UnknownNameError: the catalogue does not have a family.
  """
  names = plans.chosen_families(families, FAMILIES, "model")
  rng = np.random.default_rng(seed)
  queues = []
  for name in names:
    listed = [ModelProgram(name, tuple(map(int, numbers.split("x"))), mode)
             for numbers, modes in (entry.split(":") for entry in FAMILIES[name].shapes.split())
             for mode in modes.split(",")]
    queues.append(listed[::-1])
  ordered: list[ModelProgram] = []
  while any(queues):
    for index in rng.permutation(len(queues)):
      if queues[index]:
        ordered.append(queues[index].pop())
  return ordered[:count]
