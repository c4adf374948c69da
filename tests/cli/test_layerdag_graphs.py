"""The command that writes graphs of a collection or of a rule."""


import pytest

from tests.helpers import commands
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.dags import rules


def _run(*arguments):
  return commands.run("layerdag graphs", *arguments)


def test_the_bundled_kernels(tmp_path):
  output = tmp_path / "out" / "kernels.npz"
  done = _run("--collection", "tile:xla_cpu", "--splits", "train,valid", "--output", output)
  assert done.returncode == 0, done.stderr
  graphs = dags.load(output)
  assert graphs.y_names == ("runtime",) and graphs.x_names == ("opcode",)
  first, second, last = done.stdout.splitlines()
  assert first.startswith(f"{len(graphs)} graphs, {len(graphs.x)} nodes (")
  assert f"{len(set(graphs.wl.tolist()))} distinct structures, {len(graphs.vocabularies[0])} opc" \
      in first
  assert second == f"0 of {len(graphs)} programs left out"
  assert last == f"{len(graphs)} graphs: {output}"


def test_sub_graphs_of_layout_programs(tmp_path):
  output = tmp_path / "cones.npz"
  done = _run("--collection", "layout:xla_cpu:mixed:v1", "--splits", "valid", "--subgraphs", 3,
              "--max_nodes", 20, "--attributes", "opcode,element_type", "--output", output)
  assert done.returncode == 0, done.stderr
  graphs = dags.load(output)
  assert graphs.sizes.max() <= 20 and graphs.y_names == ()
  assert graphs.x_names == ("opcode", "element_type") and "f32" in graphs.vocabularies[1]


def test_a_rule(tmp_path):
  output = tmp_path / "balanced.npz"
  done = _run("--rule", "balanced", "--count", 3, "--nodes", 20, "--seed", 4, "--output", output)
  assert done.returncode == 0 and done.stdout.startswith("3 graphs, "), done.stderr
  assert dags.load(output).wl.tolist() == rules.balanced(3, 20, 4).wl.tolist()


def test_a_file_is_divided(tmp_path):
  graphs = rules.balanced(30, 6, 4)
  dags.save(tmp_path / "all.npz", graphs)
  done = _run("--graphs", tmp_path / "all.npz", "--divide", "--seed", 3, "--output",
              tmp_path / "part.npz")
  assert done.returncode == 0, done.stderr
  parts = dags.split_by_wl(graphs, dags.SHARES, 3)
  for line, (split, rows) in zip(done.stdout.splitlines()[1:], parts.items(), strict=True):
    path = tmp_path / f"part_{split}.npz"
    assert line == f"{len(rows)} graphs: {path}"
    part = dags.load(path)
    assert part.wl.tolist() == graphs.wl[rows].tolist()
    assert part.provenance["split"] == split and part.provenance["rule"] == "balanced"


@pytest.mark.parametrize("arguments, status, message", [
    ([], 1, "error: expected exactly one source of graphs: --collection, --rule or --graphs"),
    (["--rule", "balanced", "--collection", "tile:xla_cpu"], 1, "error: expected exactly one sou"),
    (["--rule", "balanced", "--subgraphs", "3"], 1,
     "error: --subgraphs applies to --collection; remove it from a command with --rule\n"),
    (["--collection", "tile:xla_cpu", "--nodes", "9"], 1,
     "error: --nodes applies to --rule; remove it from a command with --collection\n"),
    (["--collection", "tile:xla_cpu", "--max_nodes", "1"], 1,
     "error: tile:xla_cpu train, valid, test: none of 703 programs has at most 1 nodes; raise the"),
    (["--collection", "tile:xla", "--data_root", "/nowhere"], 1,
     "error: no data of tile:xla train at /nowhere/npz/tile/xla/train; download it with `tpu"),
    (["--rule", "unbalanced"], 2, "error: flag --rule=unbalanced: value should be one of <balan"),
])
def test_a_mistake_is_one_line(arguments, status, message, tmp_path):
  done = _run("--output", tmp_path / "graphs.npz", *arguments)
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())
