"""Programs of raw files, their candidates, and the graphs of both."""

import numpy as np
import pytest

from tests import testdata
from tests.candidates import small_programs
from tests.helpers import registrations
from tests.hlo import modules
from tpugraphs_rank import candidates
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import generators
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.data import npz
from tpugraphs_rank.hlo import graph as hlo_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2


def test_programs_of_a_file(tmp_path):
  path = small_programs.write(tmp_path / "two.pb", small_programs.matmul(4, 5, 6, "a"),
                              small_programs.matmul(4, 5, 6, "b"))
  assert [program.name for program in programs.read(path)] == ["a", "b"]
  [program] = programs.read(path, "b")
  assert program.name == "b" and program.source == f"{path}: module 'b'"
  with pytest.raises(errors.UnknownNameError, match="two.pb has no module 'c'; its modules: a, b$"):
    programs.read(path, "c")


def test_modules_of_one_name(tmp_path):
  path = small_programs.write(tmp_path / "three.pb", small_programs.matmul(4, 5, 6, "same"),
                              small_programs.matmul(7, 8, 9, "other"),
                              small_programs.matmul(10, 11, 12, "same"))
  for module in (None, "same"):
    with pytest.raises(errors.ConfigError, match="has 2 modules named 'same'; expected one; .*: "
                       "--module='same#1' or 'same#2'$"):
      programs.read(path, module)
  assert [program.name for program in programs.read(path, "other")] == ["other"]
  [program] = programs.read(path, "same#2")
  assert program.data.module == small_programs.matmul(10, 11, 12, "same")
  assert program.source == f"{path}: module 'same#2'"
  with pytest.raises(errors.UnknownNameError, match="no module 'same#3'; its modules: same#1, oth"):
    programs.read(path, "same#3")


@testdata.required
def test_modules_of_one_name_from_the_field():
  path = testdata.path("field_cases") / "two_modules_same_name.pb"
  with pytest.raises(errors.ConfigError, match="has 2 modules named 'same'"):
    programs.read(path)
  [program] = programs.read(path, "same#2")
  assert list(program.data.module.computations[0].instructions[0].shape.dimensions) == [128, 128]


def test_names_of_modules_are_escaped(tmp_path):
  path = small_programs.write(tmp_path / "two.pb", small_programs.matmul(4, 5, 6, "\x1b[2Jx\ny"),
                              small_programs.matmul(4, 5, 6, "b"))
  assert programs.read(path)[0].source == f"{path}: module '\\x1b[2Jx\\ny'"
  with pytest.raises(errors.UnknownNameError) as caught:
    programs.read(path, "\x1b[31m")
  assert str(caught.value).isprintable()


def test_every_kind_of_dump(tmp_path):
  module = small_programs.matmul(4, 5, 6)
  for number, message in enumerate([
      module, hlo_pb2.HloProto(hlo_module=module),
      tuning_pb2.TuningData(modules=[small_programs.data_of(module)]),
      small_programs.data_of(module, [modules.tile_run(None)] * 2)]):
    path = tmp_path / f"{number}.pb"
    path.write_bytes(message.SerializeToString())
    [program] = programs.read(path)
    assert program.data.module == module


def test_a_program_without_a_name_is_named_after_its_file(tmp_path):
  [program] = programs.read(
      small_programs.write(tmp_path / "mine.pb", small_programs.matmul(4, 5, 6, "")))
  assert program.name == "mine"


def test_modules_without_a_program_are_skipped(tmp_path, caplog):
  data = tuning_pb2.TuningData(modules=[
      tuning_pb2.ModuleTuningData(fingerprint=7),
      small_programs.data_of(small_programs.matmul(4, 5, 6))])
  (tmp_path / "f.pb").write_bytes(data.SerializeToString())
  assert len(programs.read(tmp_path / "f.pb")) == 1
  assert "a module has no HLO program and is skipped" in caplog.text


def _program(kind, runs=()):
  module = small_programs.matmul(4, 6, 8) if kind == "tile" else small_programs.perceptron()
  return programs.HloProgram("p", "f.pb: module 'p'", small_programs.data_of(
      module, runs, [2] if kind == "layout" and runs else []))


def _find(program, kind, wanted):
  return programs.find(program, kind, wanted, "elements", 20, 0)


def test_sources_of_candidates(tmp_path):
  measured = _program("tile", [modules.tile_run(None, output=(2, 2))])
  assert _find(measured, "tile", "").about["source"] == "runs"
  assert _find(measured, "tile", "auto").about["source"] == "auto"
  assert _find(_program("tile"), "tile", "").about["source"] == "auto"
  np.savez(tmp_path / "f.npz", **_find(_program("tile"), "tile", "auto").arrays)
  assert _find(measured, "tile", str(tmp_path / "f.npz")).about["given"] == 20
  with pytest.raises(errors.DataError, match="module 'p' has no tile configurations in its file"):
    _find(_program("tile"), "tile", "runs")
  program = _program("layout", [modules.layout_run([[(0, 1)]])])
  assert _find(program, "layout", "").count == 1
  assert _find(program, "layout", "auto").about["source"] == "auto"
  # Tile runs are not layouts, so there are no runs of this kind.
  assert _find(measured, "layout", "").about["source"] == "auto"


@pytest.mark.parametrize("kind", ["tile", "layout"])
@pytest.mark.parametrize("padding", [0, -1])
def test_graphs(kind, padding, tmp_path):
  program = _program(kind)
  actual = _find(program, kind, "auto")
  graph = programs.to_graph(program, actual, padding)
  assert graph.kind == kind and graph.name == "p" and graph.num_configs == 20
  assert not graph.has_runtimes and graph.feature_padding == padding
  for key, array in hlo_graph.graph_arrays(program.data.module, padding).items():
    np.testing.assert_array_equal(graph.arrays()[key], array)
  if kind == "layout":
    np.testing.assert_array_equal(graph.node_config_ids, actual.arrays["node_config_ids"])
    # One byte per number, which the graph does not copy.
    layouts = actual.arrays["node_config_feat"]
    assert layouts.dtype == np.int8 and np.shares_memory(graph.compact, layouts)
    np.testing.assert_array_equal(graph.layouts(np.arange(20)), layouts)
    assert graph.nbytes == layouts.nbytes + sum(
        array.nbytes for key, array in graph.arrays().items() if key != "node_config_feat")
    return
  np.testing.assert_array_equal(graph.config_feat, actual.arrays["config_feat"])
  npz.save_graph(tmp_path / "p.npz", graph)
  assert npz.load_graph(tmp_path / "p.npz").num_configs == 20


def test_a_registered_generator_provides_the_candidates():
  requests = []

  def first_two(request):
    requests.append(request)
    rows = generators.auto(request).arrays["config_feat"][:2]
    return supplied.from_arrays({"config_feat": rows}, request.data, request.kind)

  program = programs.HloProgram(
      "p", "f.pb", small_programs.data_of(small_programs.matmul(4, 8, 8)))
  with registrations.undone():
    candidates.register("first_two", first_two)
    assert programs.is_generator("first_two")
    assert programs.find(program, "tile", "first_two", "elements", 9, 3).count == 2
  assert (requests[0].kind, requests[0].limit, requests[0].seed) == ("tile", 9, 3)
  with pytest.raises(errors.UnknownNameError, match="'atuo'; expected one of: auto"):
    programs.find(program, "tile", "atuo", "elements", 9, 0)


@pytest.mark.parametrize(("generator", "message"), [
    (lambda request: None, "returns NoneType; expected tile candidates"),
    (lambda request: request.tiles, r"fails: AttributeError: .*test_programs.py:\d+\)$"),
])
def test_a_wrong_generator_is_named(generator, message):
  program = programs.HloProgram(
      "p", "f.pb", small_programs.data_of(small_programs.matmul(4, 8, 8)))
  with registrations.undone():
    candidates.register("mine", generator)
    with pytest.raises(errors.ConfigError, match="the candidate generator 'mine' " + message):
      programs.find(program, "tile", "mine", "elements", 9, 0)
