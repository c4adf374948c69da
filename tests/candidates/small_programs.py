"""Small handwritten programs."""

from collections.abc import Sequence
import pathlib
from typing import Any

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2

KERNELS = pathlib.Path(__file__).parent / "data" / "measured_kernels.pb"


def add(computation: hlo_pb2.HloComputationProto, opcode: str, shape: Sequence[int],
        operands: Sequence[int] = (), **fields: Any) -> int:
  """Appends an instruction, which becomes the root; returns its id."""
  number = 100 * computation.id + len(computation.instructions)
  computation.instructions.add(
      id=number, name=f"{opcode}.{number}", opcode=opcode, operand_ids=operands,
      shape=hlo_pb2.ShapeProto(
          element_type=hlo_pb2.F32, dimensions=shape,
          layout=hlo_pb2.LayoutProto(minor_to_major=fields.pop(
              "layout", list(reversed(range(len(shape))))))), **fields)
  computation.root_id = number
  return number


def program(name: str = "made") -> tuple[hlo_pb2.HloModuleProto, hlo_pb2.HloComputationProto]:
  """An empty program and its entry computation, whose id is 1."""
  module = hlo_pb2.HloModuleProto(name=name, entry_computation_id=1, entry_computation_name="main")
  return module, module.computations.add(id=1, name="main")


def matmul(m: int, n: int, k: int, name: str = "product", numbered: bool = True
           ) -> hlo_pb2.HloModuleProto:
  """[m, k] x [k, n]; without `numbered` the dot does not specify which axes it contracts."""
  module, main = program(name)
  left = add(main, "parameter", [m, k])
  right = add(main, "parameter", [k, n], parameter_number=1)
  numbers: dict[str, Any] = {"dot_dimension_numbers": hlo_pb2.DotDimensionNumbers(
      lhs_contracting_dimensions=[1], rhs_contracting_dimensions=[0])} if numbered else {}
  add(main, "dot", [m, n], [left, right], **numbers)
  return module


def perceptron(batch: int = 4, width: int = 6, name: str = "perceptron"
               ) -> hlo_pb2.HloModuleProto:
  """Two dots (nodes 2 and 5) with a reshape (node 3) between them."""
  module, main = program(name)
  x = add(main, "parameter", [batch, width])
  w = add(main, "parameter", [width, 2 * width], parameter_number=1)
  hidden = add(main, "dot", [batch, 2 * width], [x, w])
  flat = add(main, "reshape", [2 * batch, width], [hidden])
  v = add(main, "parameter", [width, 3], parameter_number=2)
  add(main, "dot", [2 * batch, 3], [flat, v])
  return module


def convolution_numbers() -> hlo_pb2.ConvolutionDimensionNumbers:
  """NHWC, HWIO."""
  return hlo_pb2.ConvolutionDimensionNumbers(
      input_batch_dimension=0, input_feature_dimension=3, input_spatial_dimensions=[1, 2],
      kernel_spatial_dimensions=[0, 1], kernel_input_feature_dimension=2,
      kernel_output_feature_dimension=3, output_batch_dimension=0, output_feature_dimension=3,
      output_spatial_dimensions=[1, 2])


def data_of(module: hlo_pb2.HloModuleProto, runs: Sequence[tuning_pb2.ConfigProfile] = (),
            nodes: Sequence[int] = ()) -> tuning_pb2.ModuleTuningData:
  return tuning_pb2.ModuleTuningData(module=module, runs=runs, config_index_to_node=nodes)


def write(path: pathlib.Path, *modules: hlo_pb2.HloModuleProto) -> pathlib.Path:
  """One module as a bare program, several as a `TuningData` without runs."""
  if len(modules) == 1:
    path.write_bytes(modules[0].SerializeToString())
  else:
    data: list[tuning_pb2.ModuleTuningData] = [data_of(module) for module in modules]
    path.write_bytes(tuning_pb2.TuningData(modules=data).SerializeToString())
  return path
