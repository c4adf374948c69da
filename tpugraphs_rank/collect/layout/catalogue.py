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
        "256x160x4:forward 384x128x5:forward 128x160x2:training 192x192x2:training "
        "320x144x4:forward"),
    "mlp_batch_norm": Family(
        "dense", "train", "rows width layers",
        "384x160x4:forward 512x128x4:forward 256x160x2:training 192x192x3:training "
        "448x144x4:forward"),
    "autoencoder": Family(
        "dense", "valid", "rows width code",
        "384x256x32:forward 512x192x24:forward 192x256x32:training 256x192x48:training "
        "448x224x28:forward"),
    "mixer": Family(
        "dense", "train", "batch tokens width layers",
        "8x64x64x2:forward 4x128x64x2:forward 4x64x64x1:training 8x48x48x1:training "
        "6x96x56x2:forward"),
    "gated_mlp": Family(
        "dense", "test", "batch tokens width layers",
        "8x64x64x2:forward 4x128x48x2:forward 8x64x48x1:training 4x128x64x1:training"),
    "experts": Family(
        "dense", "train", "rows width experts",
        "256x64x4:forward 192x96x6:forward 192x64x4:training 256x48x6:training 224x80x5:forward"),
    "highway": Family(
        "dense", "train", "rows width layers",
        "256x160x3:forward 384x112x4:forward 192x144x2:training 256x96x3:training "
        "320x128x3:forward"),
    "low_rank": Family(
        "dense", "train", "rows width rank layers",
        "384x192x24x3:forward 512x128x16x4:forward 256x160x16x2:training 320x96x12x3:training "
        "448x160x20x3:forward"),
    "cross_network": Family(
        "dense", "train", "rows width layers",
        "320x128x3:forward 512x96x3:forward 256x112x2:training 192x144x2:training "
        "416x112x3:forward"),
    "block_diagonal": Family(
        "dense", "train", "rows parts size layers",
        "384x8x24x3:forward 512x6x32x2:forward 256x8x20x2:training 320x4x32x2:training "
        "416x7x28x2:forward"),
    "variational": Family(
        "dense", "valid", "rows width code",
        "448x256x24:forward 640x160x32:forward 256x224x16:training 320x160x24:training "
        "512x192x28:forward"),
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
        "64x6x96:forward 96x5x64:forward 64x3x96:training 128x4x48:training 80x5x80:forward"),
    "peephole": Family(
        "recurrent", "train", "batch steps width",
        "96x5x64:forward 64x4x96:forward 64x3x64:training 96x3x48:training 80x4x80:forward"),
    "bidirectional": Family(
        "recurrent", "valid", "batch steps width",
        "96x5x96:forward 64x6x128:forward 96x3x64:training 64x4x96:training 80x5x112:forward"),
    "gru": Family(
        "recurrent", "test", "batch steps width",
        "96x5x96:forward 128x4x64:forward 64x3x96:training 96x4x64:training"),
    "minimal_gated": Family(
        "recurrent", "train", "batch steps width",
        "96x4x80:forward 64x5x112:forward 64x3x80:training 96x2x64:training 80x5x96:forward"),
    "differential": Family(
        "recurrent", "train", "batch width steps",
        "192x128x2:forward 256x96x3:forward 128x112x1:training 192x80x2:training "
        "224x112x2:forward"),
    "quasi_recurrent": Family(
        "recurrent", "train", "batch steps width",
        "64x8x64:forward 96x6x48:forward 64x5x48:training 48x6x64:training 80x7x56:forward"),
    "state_space": Family(
        "recurrent", "valid", "batch steps width states",
        "48x6x64x16:forward 64x8x48x8:forward 48x4x48x12:training 32x5x64x16:training "
        "56x7x56x12:forward"),
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
    # Scientific computing, computer vision and graphs with more structure. They are trained on or
    # validate, so that results on the test families above remain comparable.
    "gaussian_process": Family(
        "science", "valid", "batch points queries width",
        "8x64x48x16:forward 8x48x64x12:forward 8x40x24x8:training 6x48x24x12:training "
        "8x56x56x14:forward"),
    "kalman_filter": Family(
        "science", "train", "batch steps states observed",
        "192x3x12x1:forward 128x2x16x2:forward 128x2x10x1:training 96x1x12x2:training "
        "160x3x14x1:forward"),
    "sinkhorn": Family(
        "science", "train", "batch points width heads turns",
        "4x64x32x4x4:forward 4x56x24x3x5:forward 4x48x24x4x2:training 2x64x32x2x2:training "
        "4x48x32x4x4:forward"),
    "newton_schulz": Family(
        "science", "train", "batch length width heads layers",
        "4x96x64x8x3:forward 2x128x96x8x2:forward 2x96x48x4x2:training 4x48x64x4x1:training"),
    "conjugate_gradient": Family(
        "science", "train", "batch size columns steps",
        "16x64x32x3:forward 24x48x24x4:forward 16x48x24x2:training 12x56x16x2:training "
        "20x56x28x3:forward"),
    "ridge_regression": Family(
        "science", "valid", "tasks shots queries width",
        "64x24x24x8:forward 96x16x32x6:forward 48x16x16x5:training 64x20x16x4:training "
        "80x20x28x7:forward"),
    "quantum_circuit": Family(
        "science", "train", "batch qubits layers",
        "96x8x2:forward 32x10x2:forward 48x7x1:training 16x9x1:training 64x9x2:forward"),
    "matrix_product_state": Family(
        "science", "train", "batch length bond",
        "32x32x8:forward 64x16x10:forward 24x16x8:training 16x32x6:training 48x24x9:forward"),
    "tensor_field": Family(
        "science", "train", "graphs nodes channels layers",
        "2x24x8x2:forward 3x32x6x1:forward 2x16x8x1:training 1x24x6x1:training 2x28x6x2:forward"),
    "lattice_boltzmann": Family(
        "science", "valid", "batch side steps",
        "2x32x3:forward 1x56x2:forward 1x32x2:training 2x28x1:training"),
    "fourier_operator": Family(
        "science", "train", "batch points width modes layers",
        "8x128x16x12x2:forward 8x160x12x8x3:forward 8x96x12x8x1:training 6x128x16x10x1:training"),
    "physics_informed": Family(
        "science", "train", "nets points width layers",
        "6x128x24x2:forward 8x96x20x3:forward 6x96x16x2:training 8x128x24x1:training "
        "7x112x22x2:forward"),
    "matrix_factorisation": Family(
        "science", "train", "batch rows columns rank steps",
        "8x64x48x8x4:forward 12x48x56x6x3:forward 8x56x40x6x2:training 6x64x48x8x2:training"),
    "tsne": Family(
        "science", "train", "batch points width steps",
        "4x96x16x3:forward 8x64x24x2:forward 4x64x16x1:training 3x72x12x2:training "
        "6x80x20x2:forward"),
    "radiance_field": Family(
        "vision", "train", "rays samples width bands",
        "64x24x32x4:forward 48x40x24x6:forward 32x24x24x4:training 40x16x32x3:training "
        "56x32x28x5:forward"),
    "coupling_flow": Family(
        "vision", "train", "batch side width steps",
        "2x32x16x3:forward 1x48x12x4:forward 1x32x12x2:training 2x24x8x2:training"),
    "optical_flow": Family(
        "vision", "valid", "batch side channels",
        "1x32x12:forward 2x24x16:forward 1x24x8:training 2x20x12:training"),
    "spatial_transformer": Family(
        "vision", "train", "batch side channels",
        "2x24x6:forward 4x16x8:forward 2x16x4:training 1x24x6:training"),
    "deformable_parts": Family(
        "vision", "train", "batch side parts",
        "2x64x16:forward 1x96x24:forward 1x64x16:training 2x48x12:training"),
    "vector_quantiser": Family(
        "vision", "train", "batch side width heads codes",
        "4x32x32x4x24:forward 2x64x24x3x16:forward 2x32x32x4x16:training 1x48x24x2x24:training"),
    "point_net": Family(
        "vision", "valid", "batch points width",
        "8x160x32:forward 12x128x24:forward 6x128x32:training 8x96x24:training"),
    "involution": Family(
        "convolution", "valid", "batch side channels groups layers",
        "1x48x16x4x2:forward 2x40x12x2x2:forward 1x32x16x4x1:training 1x40x8x2x1:training"),
    "spatiotemporal": Family(
        "convolution", "train", "batch frames side channels layers",
        "1x8x32x8x2:forward 2x6x24x12x2:forward 1x6x24x8x1:training 1x8x20x6x2:training"),
    "graph_pooling": Family(
        "graph", "train", "graphs nodes width clusters",
        "8x80x32x16:forward 8x64x48x12:forward 8x64x32x12:training 4x80x24x16:training"),
    "metapath": Family(
        "graph", "valid", "graphs users items width layers",
        "4x64x80x24x2:forward 4x96x48x32x1:forward 4x48x64x24x1:training 4x56x48x16x1:training"),
    "hypergraph": Family(
        "graph", "train", "graphs nodes edges width layers",
        "4x80x48x32x2:forward 8x48x64x24x3:forward 6x64x40x32x1:training 4x80x56x24x1:training"),
    "knowledge_graph": Family(
        "graph", "train", "rows entities heads size",
        "96x256x4x12:forward 96x256x6x8:forward 96x128x4x8:training 96x128x3x12:training "
        "96x224x5x10:forward"),
    "continuous_filter": Family(
        "graph", "train", "graphs nodes width layers",
        "2x32x24x2:forward 3x24x32x2:forward 2x24x16x1:training 1x32x24x1:training"),
    # Sequence models with other recursions and sums than softmax attention.
    "retention": Family(
        "sequence", "train", "batch length width heads layers",
        "4x64x48x4x1:forward 4x96x32x4x2:forward 4x48x48x4x1:training 6x48x32x2x1:training "
        "4x80x40x4x1:forward"),
    "gated_linear_attention": Family(
        "sequence", "train", "batch chunks length width heads",
        "2x4x24x48x4:forward 4x3x32x32x2:forward 2x3x24x48x3:training 2x4x16x32x4:training "
        "2x4x28x40x4:forward"),
    "state_space_duality": Family(
        "sequence", "train", "batch length width heads states",
        "4x64x48x4x16:forward 4x48x64x8x12:forward 4x48x48x4x8:training 4x40x32x4x16:training "
        "4x56x56x4x16:forward"),
    "long_convolution": Family(
        "sequence", "valid", "batch length width order",
        "4x64x24x2:forward 6x48x32x3:forward 4x48x16x2:training 4x40x24x1:training "
        "5x56x28x2:forward"),
    "rwkv": Family(
        "sequence", "train", "batch steps width layers",
        "24x8x48x1:forward 24x6x64x2:forward 24x5x48x1:training 48x4x32x1:training "
        "24x7x56x1:forward"),
    "hidden_markov": Family(
        "sequence", "train", "batch steps states features",
        "16x8x24x16:forward 24x6x32x24:forward 16x5x20x16:training 24x4x24x12:training "
        "20x7x28x20:forward"),
    "conditional_random_field": Family(
        "sequence", "valid", "batch steps chains tags width",
        "64x8x3x16x48:forward 48x7x4x12x64:forward 48x5x3x16x48:training 64x4x4x12x32:training "
        "56x8x3x14x56:forward"),
    # Recurrent cells whose state has parts.
    "clockwork": Family(
        "recurrent", "train", "batch steps modules size",
        "128x8x4x20:forward 160x6x3x32:forward 128x5x4x20:training 96x6x3x24:training "
        "144x7x4x24:forward"),
    "tree_lstm": Family(
        "recurrent", "train", "batch leaves width",
        "24x16x48:forward 32x16x32:forward 24x8x64:training 24x16x32:training 28x16x40:forward"),
    "fast_weights": Family(
        "recurrent", "valid", "batch steps heads size",
        "32x8x4x16:forward 32x6x3x24:forward 24x5x4x16:training 24x4x3x24:training "
        "32x7x4x20:forward"),
    "stack_augmented": Family(
        "recurrent", "train", "batch steps stacks depth width",
        "64x5x2x8x48:forward 64x4x3x6x32:forward 48x3x2x8x48:training 64x3x3x6x24:training "
        "64x5x3x6x40:forward"),
    "legendre_memory": Family(
        "recurrent", "train", "batch steps channels order width",
        "64x6x24x12x64:forward 96x5x16x16x48:forward 64x5x16x12x48:training 64x4x24x8x64:training "
        "80x5x20x12x56:forward"),
    # Attention with other patterns.
    "sliding_window_attention": Family(
        "attention", "train", "batch windows size width heads",
        "2x6x16x48x4:forward 4x4x16x32x2:forward 2x4x12x48x4:training 2x6x12x32x2:training"),
    "nystrom_attention": Family(
        "attention", "valid", "batch length landmarks width heads",
        "2x128x16x48x4:forward 4x96x12x32x4:forward 2x96x12x32x4:training 2x64x16x48x3:training"),
    "synthesizer": Family(
        "attention", "train", "batch length width heads layers",
        "4x48x48x4x1:forward 2x64x32x4x2:forward 2x48x32x4x1:training 4x40x48x3x1:training "
        "3x56x40x4x1:forward"),
    "triangle_update": Family(
        "attention", "train", "batch side width layers",
        "2x20x16x1:forward 1x24x24x1:forward 1x20x16x1:training 1x16x24x1:training "
        "1x22x20x1:forward"),
    "outer_product_mean": Family(
        "attention", "valid", "batch rows residues width heads",
        "2x8x20x32x4:forward 1x12x28x24x3:forward 1x8x20x32x4:training 1x6x24x24x2:training"),
    "cross_covariance_attention": Family(
        "attention", "train", "batch length width heads layers",
        "4x80x48x4x1:forward 2x96x64x8x2:forward 4x64x48x4x1:training 2x64x64x8x1:training"),
    "attention_flow": Family(
        "attention", "train", "batch context query width",
        "4x64x24x48:forward 8x48x32x32:forward 4x48x16x48:training 4x48x24x32:training "
        "6x56x28x40:forward"),
    # Dense layers with structure.
    "tensor_train": Family(
        "dense", "train", "rows side rank layers",
        "32x6x4x2:forward 24x8x4x2:forward 24x6x4x1:training 16x6x3x2:training 28x7x4x2:forward"),
    "kronecker": Family(
        "dense", "valid", "rows left right terms layers",
        "96x12x16x3x2:forward 64x16x24x2x3:forward 64x12x16x3x1:training 48x12x12x2x2:training "
        "80x14x20x2x2:forward"),
    "butterfly": Family(
        "dense", "train", "rows levels layers",
        "128x7x2:forward 160x6x3:forward 96x6x2:training 128x7x1:training 144x7x2:forward"),
    "variable_selection": Family(
        "dense", "train", "rows variables width",
        "160x12x24:forward 128x16x32:forward 128x10x24:training 96x12x32:training "
        "144x14x28:forward"),
    "neural_additive": Family(
        "dense", "train", "rows features width outputs",
        "128x16x24x10:forward 96x24x16x6:forward 96x12x24x8:training 64x16x16x10:training "
        "112x20x20x8:forward"),
    "mixture_of_softmaxes": Family(
        "dense", "valid", "batch length width mixtures words",
        "8x24x32x5x96:forward 8x16x48x4x128:forward 8x16x32x4x96:training 6x12x48x3x96:training "
        "8x20x40x4x112:forward"),
    "product_key_memory": Family(
        "dense", "train", "rows heads keys size",
        "96x4x12x16:forward 64x6x16x12:forward 64x4x12x16:training 48x6x10x12:training "
        "80x5x14x14:forward"),
    "oblivious_trees": Family(
        "dense", "train", "rows features trees depth",
        "96x48x32x5:forward 128x32x48x4:forward 96x48x24x4:training 64x32x32x5:training "
        "112x40x40x4:forward"),
    "kolmogorov_arnold": Family(
        "dense", "valid", "rows width grid layers",
        "320x24x8x3:forward 192x40x6x3:forward 256x24x8x2:training 320x20x6x2:training "
        "256x32x7x2:forward"),
    "quaternion": Family(
        "dense", "train", "rows width layers",
        "160x32x3:forward 256x24x4:forward 128x32x2:training 192x24x3:training 208x28x3:forward"),
    "bilinear_fusion": Family(
        "dense", "train", "batch regions width rank size",
        "24x20x64x5x32:forward 32x16x48x4x40:forward "
        "16x20x48x5x24:training 24x16x48x4x32:training 28x18x56x4x36:forward"),
    "late_interaction": Family(
        "dense", "train", "rows words tokens width",
        "24x8x24x48:forward 24x6x16x32:forward 16x8x20x48:training 20x6x16x32:training "
        "24x7x20x40:forward"),
    "n_beats": Family(
        "dense", "train", "batch series history horizon width",
        "16x12x48x16x64:forward 24x8x64x24x48:forward "
        "12x12x48x16x48:training 16x8x40x12x64:training 20x10x56x20x56:forward"),
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


def programs(families: Iterable[str] | None = None, seed: int = 0) -> list[ModelProgram]:
  """The catalogue: the first programs of all families in a random order, then the second ones, ...

  A collection that ends early therefore lacks some sizes, but no family.

  Args:
    families: only these families; None: all.
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
  return ordered
