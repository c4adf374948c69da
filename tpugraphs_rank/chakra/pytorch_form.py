"""Execution traces that PyTorch's profiler writes as JSON (ExecutionTraceObserver)."""

from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.chakra import et_def_pb2


def convert(value: dict[str, Any], source: files.PathLike
            ) -> tuple[et_def_pb2.GlobalMetadata, list[et_def_pb2.Node]]:
  """Converts a PyTorch execution trace.

  Raises:
    DataError: the trace violates its format.
  """
  raise errors.DataError(
      f"{source} is a PyTorch execution trace of schema {str(value['schema'])[:40]!r}, whose nodes "
      "have no data dependencies; convert it with chakra_converter PyTorch first, and pass the "
      ".et file")
