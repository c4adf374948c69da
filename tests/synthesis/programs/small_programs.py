"""Programs that several tests use, and a NumPy implementation of programs."""

from collections.abc import Sequence

import numpy as np

from tpugraphs_rank.synthesis.programs import programs

Node = programs.Node

MATMUL = programs.RunnableProgram("hand_dot.0.f32", (
    Node("parameter", (), "f32", (48, 32)), Node("parameter", (), "f32", (32, 64)),
    Node("dot", (0, 1), "f32", (48, 64), "ak,kb->ab")))
BATCHED = programs.RunnableProgram("hand_dot.1.f32", (
    Node("parameter", (), "f32", (4, 16, 24)), Node("parameter", (), "f32", (4, 24, 32)),
    Node("dot", (0, 1), "f32", (4, 16, 32), "abk,akc->abc")))
BIAS = programs.RunnableProgram("hand_dot.2.f32", (
    Node("parameter", (), "f32", (24, 16)), Node("parameter", (), "f32", (16, 40)),
    Node("dot", (0, 1), "f32", (24, 40), "ak,kb->ab"), Node("parameter", (), "f32", (40,)),
    Node("broadcast", (3,), "f32", (24, 40), "b->ab"), Node("add", (2, 4), "f32", (24, 40)),
    Node("constant", (), "f32", (), value=0.5), Node("maximum", (5, 6), "f32", (24, 40))))
PAIRWISE = programs.RunnableProgram("hand_reduce.3.f32", (
    Node("parameter", (), "f32", (24, 16)), Node("broadcast", (0,), "f32", (24, 32, 16), "ac->abc"),
    Node("parameter", (), "f32", (32, 16)), Node("broadcast", (2,), "f32", (24, 32, 16), "bc->abc"),
    Node("subtract", (1, 3), "f32", (24, 32, 16)), Node("multiply", (4, 4), "f32", (24, 32, 16)),
    Node("reduce-add", (5,), "f32", (24, 32), "abc->ab")))
SOFTMAX = programs.RunnableProgram("hand_reduce.4.f32", (
    Node("parameter", (), "f32", (24, 48)), Node("reduce-maximum", (0,), "f32", (24,), "ab->a"),
    Node("broadcast", (1,), "f32", (24, 48), "a->ab"), Node("subtract", (0, 2), "f32", (24, 48)),
    Node("exponential", (3,), "f32", (24, 48)), Node("reduce-add", (4,), "f32", (24,), "ab->a"),
    Node("broadcast", (5,), "f32", (24, 48), "a->ab"), Node("divide", (4, 6), "f32", (24, 48))))
CONVOLUTION = programs.RunnableProgram("hand_convolution.5.f32", (
    Node("parameter", (), "f32", (2, 18, 18, 8)), Node("parameter", (), "f32", (3, 3, 8, 16)),
    Node("convolution", (0, 1), "f32", (2, 16, 16, 16))))
MOVED = programs.RunnableProgram("hand_transpose.6.s32", (
    Node("parameter", (), "s32", (26, 48)), Node("slice", (0,), "s32", (24, 48), starts=(2, 0)),
    Node("parameter", (), "s32", (24, 16)),
    Node("concatenate", (1, 2), "s32", (24, 64), axis=1),
    Node("transpose", (3,), "s32", (64, 24), "ba->ab"),
    Node("parameter", (), "s32", (16, 96)), Node("reshape", (5,), "s32", (64, 24)),
    Node("xor", (4, 6), "s32", (64, 24))))
GATHER = programs.RunnableProgram("hand_gather.7.bf16", (
    Node("parameter", (), "bf16", (40, 32)), Node("parameter", (), "s32", (64,)),
    Node("gather", (0, 1), "bf16", (64, 32)), Node("parameter", (), "bf16", (64, 32)),
    Node("compare", (2, 3), "pred", (64, 32)), Node("constant", (), "bf16", (), value=0.5),
    Node("select", (4, 2, 5), "bf16", (64, 32))))

ALL = (MATMUL, BATCHED, BIAS, PAIRWISE, SOFTMAX, CONVOLUTION, MOVED, GATHER)

_FUNCTIONS = {"exponential": np.exp, "tanh": np.tanh, "negate": np.negative, "add": np.add,
              "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
              "maximum": np.maximum, "xor": np.bitwise_xor, "compare": np.greater,
              "select": np.where}


def by_numpy(program: programs.RunnableProgram, operands: Sequence[np.ndarray]) -> np.ndarray:
  """The result of a program in float64, one array at a time."""
  given = iter(operands)
  values: list[np.ndarray] = []
  for node in program.nodes:
    below = [values[operand] for operand in node.operands]
    if node.operation == "parameter":
      value = np.asarray(next(given))
      value = value if value.dtype.kind in "ib" else value.astype(np.float64)
    elif node.operation == "constant":
      value = np.array(node.value)
    elif node.operation == "convolution":
      value = _convolved(*below)
    elif node.operation == "reduce-maximum":
      names, result = programs.labels(node)
      value = below[0].max(axis=tuple(i for i, name in enumerate(names[0]) if name not in result))
    elif node.operation == "broadcast":
      names, result = programs.labels(node)
      value = np.broadcast_to(np.expand_dims(below[0], tuple(
          i for i, name in enumerate(result) if name not in names[0])), node.shape)
    elif node.equation:
      value = np.einsum(node.equation, *below)
    elif node.operation == "slice":
      value = below[0][tuple(slice(start, start + size)
                             for start, size in zip(node.starts, node.shape))]
    elif node.operation == "concatenate":
      value = np.concatenate(below, axis=node.axis)
    elif node.operation == "reshape":
      value = below[0].reshape(node.shape)
    elif node.operation == "gather":
      value = below[0][below[1]]
    else:
      value = _FUNCTIONS[node.operation](*below)
    values.append(value)
  return values[-1]


def _convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
  tall, wide = kernel.shape[:2]
  rows, columns = image.shape[1] - tall + 1, image.shape[2] - wide + 1
  return sum(np.einsum("nhwc,cf->nhwf", image[:, i:i + rows, j:j + columns], kernel[i, j])
             for i in range(tall) for j in range(wide))
