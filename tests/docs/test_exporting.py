"""The examples of the page on exporting that need JAX run in the collector's environment."""

import os
import subprocess

import pytest

from tests.docs import pages
from tpugraphs_rank.collect import environment
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import reading

PAGE = pages.ROOT / "docs" / "tutorials" / "export_your_program.md"


@pytest.mark.skipif(
    not environment.is_ready(), reason="the collector's environment does not exist")
@pytest.mark.slow
def test_what_jax_writes_is_read(tmp_path):
  code = [block.text for block in pages.blocks(PAGE) if block.note == "executed with JAX"]
  assert len(code) == 3
  subprocess.run(
      [str(environment.python()), "-c", "\n".join(code)], cwd=tmp_path, check=True,
      env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"})
  kinds, sizes = {}, {}
  for path in tmp_path.iterdir():
    raw = reading.read_raw(path)
    kinds[path.name] = raw.kind
    sizes[path.name] = len(graph.graph_arrays(raw.modules[0].module)["node_opcode"])
  assert kinds == {
      "matmul.txt": "HLO text", "matmul.optimized.txt": "HLO text",
      "matmul.hlo.pb": "HloModuleProto", "matmul.mlir": "StableHLO",
      "matmul.exported.mlir": "StableHLO", "matmul.exported.mlirbc": "StableHLO"}
  assert {size for name, size in sizes.items() if name != "matmul.optimized.txt"} == {3}
