"""The kernels of the bundled collection: families, shapes, element types.

Sizes have many divisors rather than being powers of two, and one configuration runs for about 0.1
to 5 ms on one core. A shape is measured in one or two element types; all of its kernels go to one
split.
"""

from collections.abc import Iterable

import numpy as np

from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.tile import geometry

# family -> "shape:type[,type] ..."
SHAPES: dict[str, str] = {
    # Products of matrices.
    "matmul": "256x256x256:f32 192x320x240:f32 384x192x288:bf16 320x320x160:f32 "
              "480x240x120:f32,bf16 144x576x192:f32 640x160x192:f32 96x384x480:f32",
    "matmul_skinny": "16x768x768:f32,bf16 24x960x480:f32 32x640x720:bf16 768x16x960:f32 "
                     "640x24x768:f32 48x1152x384:f32 960x32x480:f32",
    "matmul_batched": "8x96x96x64:f32 12x64x96x96:f32 6x128x120x96:bf16 4x192x144x96:f32 "
                      "16x48x96x80:f32 10x80x96x120:f32 24x48x64x64:f32",
    "matmul_bias_relu": "240x320x192:f32 384x256x160:f32 160x480x240:bf16 288x288x192:f32 "
                        "96x768x256:f32 576x192x144:f32 336x240x160:f32",
    "matmul_bias_gelu": "192x320x256:f32 256x384x128:f32 480x160x192:f32 120x640x240:bf16 "
                        "320x240x288:f32 144x432x320:f32 768x96x192:f32",
    "attention_scores": "4x192x192x64:f32,bf16 8x96x192x48:f32 6x160x160x64:bf16 "
                        "2x320x240x80:f32 12x96x96x64:f32 4x240x160x96:f32 3x288x192x96:f32",
    "attention_values": "4x192x64x192:f32 8x96x48x192:f32 6x160x64x160:bf16 2x320x80x240:f32 "
                        "12x96x64x96:f32 4x240x96x160:f32 3x288x96x192:f32",
    # Convolutions; rows and columns are those of the output.
    "conv_1x1": "2x24x24x64x96:f32,bf16 1x32x32x96x64:f32 1x48x48x48x48:f32 4x16x16x96x80:bf16 "
                "1x40x40x64x64:f32 2x32x24x80x48:f32 1x24x24x192x96:f32",
    "conv_3x3": "1x32x32x32x32:f32 1x24x48x24x48:f32 2x24x24x32x48:bf16 1x40x40x24x32:f32 "
                "1x48x48x16x32:f32 1x32x24x48x48:f32 4x16x16x48x32:f32",
    "conv_strided": "1x24x24x32x48:f32,bf16 2x24x16x32x48:f32 1x32x32x24x32:bf16 "
                    "1x48x24x24x32:f32 1x40x40x16x32:f32 2x16x32x48x32:f32 1x32x48x24x24:f32",
    "conv_im2col": "1x32x32x32x32:f32 1x48x32x16x48:f32 2x24x24x24x32:bf16 1x40x40x16x32:f32 "
                   "1x24x48x24x48:f32 2x16x32x32x48:f32 1x48x48x16x24:f32",
    "conv_depthwise": "1x24x24x64:f32,bf16 1x32x32x48:f32 1x48x48x24:f32 2x24x24x32:bf16 "
                      "1x40x40x32:f32 1x16x48x64:f32 1x24x48x48:f32",
    # Distances between all rows of two operands.
    "pairwise_l2": "192x256x64:f32 240x320x48:f32 384x192x32:f32 160x480x64:bf16 320x320x40:s32 "
                   "96x384x96:f32,s32 288x240x80:f32",
    "pairwise_l1": "192x240x64:f32,bf16 320x256x48:f32,s32 480x192x40:f32 144x384x96:f32 "
                   "288x288x48:bf16 640x160x32:s32 240x240x80:f32",
    "pairwise_linf": "240x256x64:f32,bf16 384x240x48:f32,s32 192x480x40:f32 160x320x96:f32 "
                     "336x240x64:bf16 128x640x48:s32 288x320x32:f32",
    "pairwise_rbf": "256x192x64:f32,bf16 320x240x48:f32 192x384x80:f32 480x160x48:bf16 "
                    "288x192x96:f32 384x320x32:f32 144x480x64:f32",
    "pairwise_hamming": "384x256x96:s32 320x480x64:s32 640x240x48:s32 288x384x80:s32 "
                        "192x960x64:s32 480x480x48:s32",
    # Reductions.
    "reduce_sum_minor": "768x960:f32,bf16 1440x640:f32,s32 384x1920:f32 960x1152:bf16 "
                        "1920x480:f32 576x1600:s32",
    "reduce_max_minor": "960x768:f32,bf16 640x1440:f32,s32 1920x384:f32 1152x960:bf16 "
                        "480x1920:f32 1200x720:s32",
    "reduce_logsumexp_minor": "384x640:f32,bf16 720x480:f32 960x320:f32 240x1440:bf16 "
                              "480x768:f32 1152x288:f32",
    "reduce_sum_major": "960x768:f32,bf16 640x1440:f32,s32 1920x576:f32 1152x960:bf16 "
                        "480x1920:f32 1440x800:s32",
    "reduce_norm_major": "768x960:f32,bf16 1440x640:f32 576x1920:f32 960x1200:bf16 "
                         "1920x480:f32 800x1440:f32",
    "reduce_sum_middle": "48x96x192:f32,bf16 24x240x160:f32,s32 96x64x144:f32 32x192x160:bf16 "
                         "64x120x128:f32 16x320x192:s32",
    "reduce_sum_outer": "48x96x192:f32,bf16 160x24x240:f32,s32 64x144x96:f32 32x160x192:bf16 "
                        "120x64x128:f32 192x48x96:s32",
    # Elementwise.
    "elementwise_chain": "480x640:f32,bf16 768x384:f32,s32 240x1440:f32 960x320:bf16 "
                         "1152x288:f32 640x720:s32",
    "elementwise_gate": "640x480:f32,bf16 384x768:f32 1440x240:f32 320x960:bf16 "
                        "288x1152:f32 960x960:s32 720x1280:s32",
    "elementwise_select": "768x960:s32,f32 960x640:f32 480x1440:s32 1440x576:bf16 "
                          "640x768:bf16,f32 1920x384:f32 1152x720:s32",
    "elementwise_broadcast": "16x192x256:f32,bf16 24x160x192:f32,s32 48x96x160:f32 "
                             "8x320x240:bf16 32x144x192:s32 12x240x320:f32",
    # Gathers.
    "gather_rows": "2000x256x2304:f32,bf16 960x384x1920:f32 4000x192x2880:s32 1200x480x1440:f32 "
                   "3000x320x1920:bf16 600x640x1152:f32 1500x240x3840:s32",
    "gather_position": "2000x256x1536:f32,bf16 960x384x1440:f32 4000x192x1920:s32 "
                       "1200x480x960:f32 3000x320x1152:bf16 600x640x768:f32 1500x240x2304:s32",
    "gather_columns": "384x960x768:f32,bf16 640x480x960:f32 240x2000x1440:s32 960x640x480:f32 "
                      "480x1200x640:bf16 768x384x576:f32 320x1440x1152:s32",
    "gather_bag": "2000x128x384x16:f32,bf16 960x192x480x12:f32 4000x96x640x16:s32 "
                  "1200x160x320x24:f32 3000x64x960x16:bf16 1500x240x288x16:f32",
    # Test only: two whole groups without any training kernel.
    "softmax": "384x768:f32,bf16 240x960:f32 768x320:f32 1152x192:f32 160x1440:bf16",
    "log_softmax": "320x768:f32,bf16 192x1440:f32 960x240:f32 640x384:bf16 480x576:f32",
    "layer_norm": "384x960:f32,bf16 768x480:f32 1440x240:f32 192x1920:f32 640x576:bf16",
    "rms_norm": "480x960:f32,bf16 960x480:f32 1920x240:f32 240x1536:f32 640x768:bf16",
    "transpose_10": "480x576:f32,bf16 768x960:f32,bf16 640x384:s32 960x288:f32 1440x640:s32",
    "transpose_021": "16x96x120:f32 24x80x144:bf16 12x160x128:s32 32x72x96:f32 24x192x240:f32",
    "transpose_102": "64x48x80:f32 96x32x72:bf16 48x96x64:s32 80x64x48:f32 96x64x160:f32",
    "transpose_120": "48x64x80:f32 80x48x96:bf16 64x80x48:s32 32x96x96:f32 64x96x160:f32",
    "transpose_201": "64x48x96:f32 48x80x80:bf16 80x64x48:s32 96x48x64:f32 96x80x144:f32",
    "transpose_210": "48x64x96:f32 64x48x120:bf16 80x48x64:s32 64x64x72:f32 64x96x128:f32",
    # Scans.
    "scan_sum_minor": "480x640:f32,bf16 768x384:f32,s32 240x1440:f32 960x320:f32 1152x288:f32 "
                      "192x1920:s32",
    "scan_sum_major": "640x480:f32,bf16 384x768:f32,s32 1440x240:f32 320x960:f32 288x1152:f32 "
                      "1920x192:s32",
    "scan_max_middle": "16x96x192:f32,bf16 24x160x96:f32,s32 48x64x120:f32 8x240x160:f32 "
                       "96x48x64:f32 12x320x80:f32",
    "scan_recurrence": "8x120x160:f32,bf16 16x96x96:f32 24x64x80:f32,bf16 4x240x160:f32 "
                       "48x48x64:f32 12x160x72:f32 6x192x120:f32",
    "scan_decay": "480x480:f32,bf16 384x640:f32 240x960:f32,bf16 576x320:f32 320x720:f32 "
                  "192x1152:f32 288x768:f32",
    "scan_table": "480x640:f32,s32 384x768:f32 240x960:f32,bf16 960x288:f32 640x400:f32 "
                  "1152x240:f32 320x720:s32",
    # Fused attention.
    "flash_attention": "2x144x192x48:f32,bf16 4x96x96x32:f32 1x240x160x64:f32 3x96x144x64:f32 "
                       "2x192x120x80:f32,bf16 6x64x96x48:f32",
    "masked_attention": "2x120x192x48:f32,bf16 4x96x72x64:f32 1x192x240x48:f32 3x144x96x48:f32 "
                        "2x96x160x64:f32,bf16 6x96x64x32:f32",
    "alibi_attention": "2x192x48:f32,bf16 4x96x64:f32 1x288x48:f32 3x144x64:f32,bf16 2x160x80:f32 "
                       "6x120x32:f32",
    "window_attention": "2x288x48x64:f32,bf16 4x144x64x40:f32 1x480x48x96:f32 3x192x64x72:f32 "
                        "2x240x80x48:f32,bf16 6x192x32x48:f32",
    "grouped_attention": "2x2x96x96x48:f32,bf16 2x4x48x96x32:f32 1x4x72x120x64:f32 "
                         "3x2x64x96x48:f32 1x6x64x144x48:f32,bf16 "
                         "2x3x96x80x32:f32",
    "linear_attention": "2x240x64x48:f32,bf16 4x144x48x64:f32 1x480x96x48:f32 3x192x64x32:f32 "
                        "2x320x48x80:f32,bf16 1x288x144x64:f32",
    # Triangular matrices.
    "triangular_solve": "144x96:f32 192x64:f32 96x192:f32 240x48:f32 160x120:f32 120x144:f32 "
                        "288x72:f32 80x240:f32",
    "triangular_matmul": "240x192:f32,bf16 192x240:f32 288x160:f32,s32 384x96:f32 320x128:bf16 "
                         "160x480:f32",
    "syrk_lower": "240x160:f32,bf16 192x320:f32 288x96:f32,s32 320x64:f32 384x80:f32 160x480:f32",
    "ldl_update": "240x96:f32,bf16 192x192:f32 288x128:f32 320x72:f32,bf16 384x48:f32 160x288:f32",
    "causal_product": "2x192x48x32:f32,bf16 4x96x64x48:f32 1x288x64x48:f32 3x144x48x64:f32,bf16 "
                      "2x160x80x40:f32 6x120x32x48:f32",
    # Small integers.
    "int8_matmul": "144x192x160:f32,bf16 192x96x240:f32 96x320x128:f32 240x240x64:f32,bf16 "
                   "288x128x96:f32 384x96x120:f32",
    "dynamic_matmul": "160x144x192:f32,bf16 96x240x192:f32 240x96x160:f32 120x320x96:f32 "
                      "192x192x96:f32,bf16 64x288x240:f32",
    "group_matmul": "96x240x192:f32,bf16 32x480x320:f32 160x192x160:f32 240x144x128:f32 "
                    "64x288x384:f32,bf16 24x720x288:f32",
    "int4_matmul": "96x192x120:f32,bf16 32x480x160:f32 160x240x72:f32 240x144x64:f32 "
                   "64x288x192:f32,bf16 24x720x144:f32",
    "fake_quantise": "384x960:f32,bf16 768x480:f32 1440x240:f32 240x1440:f32 960x384:f32,bf16 "
                     "576x640:f32",
    "requantise_add": "480x640:s32,f32 768x384:s32 240x1440:s32 1152x288:s32,f32 "
                      "320x1152:s32 640x720:f32",
    # Counts.
    "row_histogram": "96x480x64:s32,f32 192x240x80:s32 48x720x96:s32 320x192x48:s32 "
                     "64x960x40:s32,f32 144x384x72:s32",
    "weighted_histogram": "720x64x96:f32,bf16 480x96x80:f32 1440x48x64:f32 960x80x48:f32,bf16 "
                          "384x160x72:f32 288x96x160:f32",
    "histogram_2d": "480x64x64:s32,f32 288x96x80:s32 720x48x64:s32 960x40x48:s32 "
                    "384x72x96:s32,f32 240x120x96:s32",
    "joint_counts": "480x12x24x32:s32,f32 720x8x48x16:s32 288x6x40x64:f32 960x4x32x48:s32 "
                    "576x3x64x48:s32,f32 240x14x48x32:f32",
    "cumulative_counts": "480x96x48:f32,s32 960x64x40:f32 240x160x96:f32 720x48x72:f32 "
                         "192x288x80:f32,bf16 576x80x64:f32",
    "digitise": "192x240x48:s32,bf16 288x96x96:s32 96x480x64:s32 240x360x40:s32 "
                "128x288x72:s32,bf16 480x160x32:s32",
    # Writing where an index says.
    "segment_sum": "1152x96x144:f32,bf16 1440x144x96:f32 1920x64x160:f32,s32 2880x96x80:f32 "
                   "960x192x120:f32 720x240x192:f32",
    "segment_sum_sorted": "1920x480x96:f32,bf16 1440x320x120:f32 960x720x80:f32,s32 "
                          "2880x240x144:f32 720x960x96:f32 2400x384x240:f32",
    "onehot_sum": "384x96x120:f32,bf16 480x160x64:f32 720x96x96:f32,s32 960x48x80:f32 "
                  "288x192x96:f32 240x120x192:f32",
    "scatter_max": "240x192x960:f32,bf16 160x320x720:f32 96x480x1440:f32,s32 320x144x960:f32 "
                   "120x240x1920:f32 480x96x1152:f32",
    "scatter_rows": "960x192x480:f32,bf16 1440x96x720:f32 480x320x320:f32,s32 1920x80x960:f32 "
                    "720x288x576:f32 640x240x480:f32",
    "scatter_columns": "160x480x144:f32,bf16 240x720x96:f32 96x960x160:f32,s32 320x384x120:f32 "
                       "192x576x192:f32 480x240x72:f32",
    # Stencils; rows and columns are those of the result.
    "stencil_laplacian": "640x768:f32,bf16 960x480:f32,s32 384x1152:f32 480x960:f32 1440x320:f32 "
                         "240x1920:f32",
    "stencil_blur": "96x96x32:f32,bf16 120x160x16:f32,s32 64x80x64:f32 48x96x96:f32 144x72x24:f32 "
                    "80x240x12:f32",
    "stencil_heat": "48x64x96:f32,bf16 32x96x120:f32 96x48x64:f32 24x120x144:f32,bf16 "
                    "64x64x80:f32 16x160x160:f32 72x80x48:f32",
    "stencil_two_steps": "320x480:f32,bf16 480x240:f32 240x640:f32,bf16 192x960:f32 384x384:f32 "
                         "640x192:f32 288x480:f32",
    "stencil_filter": "320x480x24:f32,bf16 480x240x32:f32,s32 240x640x16:f32 640x192x24:f32 "
                      "384x320x36:f32 192x960x12:f32 288x384x48:f32",
    "stencil_upwind": "480x640:f32,bf16 640x384:f32 384x768:f32,bf16 960x240:f32 240x1152:f32 "
                      "320x720:f32 720x288:f32",
    "stencil_pool": "1x48x48x64:f32,bf16 2x32x40x48:f32,s32 1x96x64x24:f32 4x12x48x64:f32 "
                    "8x14x14x96:f32 2x48x24x64:f32",
    "stencil_pool_strided": "1x48x48x64:f32,bf16 2x24x40x64:f32,s32 16x12x12x64:f32 "
                            "4x24x16x72:f32 8x14x14x80:f32 2x32x32x60:f32",
    # Order.
    "sort_top": "192x768x6:f32,bf16 96x1440x8:f32 384x480x4:f32,bf16 240x640x8:f32 "
                "144x960x12:f32 480x320x6:f32 120x1152x10:f32",
    "sort_median": "5x384x640:f32,bf16 7x480x320:f32 3x480x640:f32,s32 5x240x960:f32 "
                   "7x320x384:f32 3x720x384:f32 5x192x1152:s32",
    "sort_window": "384x480:f32,bf16 480x320:f32,s32 240x720:f32 640x240:f32 288x576:f32 "
                   "192x960:f32 960x160:s32",
    "sort_rank": "48x240:f32,bf16 24x384:f32,s32 96x192:f32 16x480:f32 64x240:f32 32x320:f32 "
                 "120x144:s32",
    "sort_argmax": "48x96x160:f32,bf16 24x160x192:f32,s32 96x64x120:f32 64x144x80:f32 "
                   "32x240x96:f32 16x320x144:s32",
    "sort_merge_step": "480x480:f32,bf16 640x320:f32,s32 288x768:f32 960x240:f32 192x1152:f32 "
                       "384x640:f32 720x400:s32",
    # Butterflies.
    "butterfly_hadamard": "24x32x240:f32,bf16 48x64x96:f32,s32 96x32x80:f32 16x64x192:f32 "
                          "12x128x160:f32 32x32x144:f32 8x64x480:f32",
    "butterfly_hadamard_minor": "2880x64:f32,bf16 1440x128:f32,s32 3840x32:f32 960x256:f32 "
                                "1920x128:f32 2400x64:f32 720x256:s32",
    "butterfly_fft": "96x640:f32,bf16 240x288:f32 48x1440:f32,bf16 160x480:f32 384x192:f32 "
                     "480x160:f32 120x720:f32",
    "butterfly_rotary": "240x12x32:f32,bf16 384x8x24:f32 480x6x32:f32,bf16 192x16x40:f32 "
                        "120x24x48:f32 576x4x48:f32 320x10x24:f32",
    "butterfly_haar": "240x320:f32,bf16 192x480:f32,s32 320x240:f32 480x192:f32 160x640:f32 "
                      "288x288:f32 144x720:s32",
}

# Groups that are only used for testing, to measure the generalization to unseen computations.
UNSEEN_GROUPS = ("normalisation", "transpose")


def kernels(families: Iterable[str] | None = None, seed: int = 0) -> list[geometry.Kernel]:
  """The catalogue in a seeded random order, so that any prefix is a random sample.

  Args:
    families: only these families; None: all.
    seed: seed of the order.

  Raises:
    UnknownNameError: the catalogue does not have a family.
  """
  names = plans.chosen_families(families, SHAPES, "kernel")
  listed = [geometry.Kernel(name, tuple(map(int, shape.split("x"))), dtype)
           for name in names
           for shape, dtypes in (entry.split(":") for entry in SHAPES[name].split())
           for dtype in dtypes.split(",")]
  order = np.random.default_rng(seed).permutation(len(listed))
  return [listed[index] for index in order]
