"""Finds the operations of a TensorFlow function that have no GPU kernel."""

from collections.abc import Iterator
import functools
from typing import Any

from tensorflow.python.framework import dtypes
from tensorflow.python.framework import kernels

# A kernel for DEFAULT serves every device.
_DEVICES = ("GPU", "DEFAULT")


def ops_without_gpu_kernels(concrete_function: Any) -> set[str]:
  """Operations in a function, and in all functions that it calls, that would run on the CPU.

  Asks TensorFlow's registry of kernels. TensorFlow's packages for Linux are built with CUDA and
  register the GPU kernels on a machine without a GPU too; `has_gpu_kernels` tells of others.

  Args:
    concrete_function: a `ConcreteFunction`, such as
      `tf.function(f).get_concrete_function(...)`.
  Returns:
    Names such as "RaggedGather", with the types where these decide: "MatMul(T=int32)".
  """
  graph = concrete_function.graph.as_graph_def(add_shapes=False)
  functions = {function.signature.name for function in graph.library.function}
  return {
      _describe(node) for node in _nodes(graph)
      if node.op not in functions and not _has_kernel(node)}


def has_gpu_kernels() -> bool:
  """Whether this TensorFlow was built with GPU kernels at all."""
  return any(kernel.device_type == "GPU" for kernel in _kernels("MatMul"))


def _nodes(graph: Any) -> Iterator[Any]:
  yield from graph.node
  for function in graph.library.function:
    yield from function.node_def


@functools.cache
def _kernels(op: str) -> Any:
  return tuple(kernels.get_registered_kernels_for_op(op).kernel)


def _has_kernel(node: Any) -> bool:
  return any(
      kernel.device_type in _DEVICES and all(
          node.attr[constraint.name].type in constraint.allowed_values.list.type
          for constraint in kernel.constraint if node.attr[constraint.name].type)
      for kernel in _kernels(node.op))


def _describe(node: Any) -> str:
  if not any(kernel.device_type in _DEVICES for kernel in _kernels(node.op)):
    return node.op
  types = sorted(
      f"{name}={dtypes.as_dtype(value.type).name}"
      for name, value in node.attr.items() if value.WhichOneof("value") == "type")
  return f"{node.op}({', '.join(types)})"
