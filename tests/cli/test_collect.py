"""The commands `collect tile`, `collect layout` and `collect remeasure`; nothing is measured here.

tests/collect tests the collector itself; the real pipeline runs in tests/house/test_wheel.py.
"""

import pathlib

import pytest

from tests.collect.layout import small_layouts
from tests.helpers import commands
from tpugraphs_rank import files
from tpugraphs_rank.cli import collect
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import raw
from tpugraphs_rank.data import collections

STEM = "encoder.4x96x96x4x1.forward"


@pytest.fixture(name="started")
def _started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
  """Replaces the collector with a stub that records one program; returns its arguments."""
  arguments: list[list[str]] = []

  def run(module: str, *words: str) -> None:
    assert module == "tpugraphs_rank.collect.layout" and words[0] == "--output"
    arguments.append(list(words[2:]))
    output = pathlib.Path(words[1])
    passes = int(next((word.partition("=")[2] for word in words if "--passes=" in word), "2"))
    for number in range(1, passes + 1):
      files.write_json(output / "measured" / f"{STEM}.pass{number}.json",
                       small_layouts.record(STEM, number))
    report = raw.write(output, [STEM], passes)
    files.write_json(output / "report.json", {
        **report, "machine": protocol.machine(), "versions": {}, "seed": 0, "protocol": {}})

  monkeypatch.setattr(collect.environment, "run", run)
  return arguments


def test_from_the_measurement_to_a_collection(tmp_path: pathlib.Path, started: list) -> None:
  done = commands.run("collect", "layout", "--output", tmp_path, "--families=encoder,unet",
                      "--limit=1", "--passes=3", "--assemble_only")
  assert done.returncode == 0, done.stderr
  assert started == [["--families=encoder,unet", "--limit=1", "--passes=3", "--assemble_only"]]
  descriptor = tmp_path / "collection" / "collection.json"
  assert done.stdout.splitlines()[-1] == f"collection: {descriptor}"
  assert done.stdout.splitlines()[0].split() == ["train", "1", "programs,", "44", "configurations"]
  graph, = collections.load_collection(str(descriptor), "train")
  assert graph.name == STEM and graph.config_runtime_passes.shape == (3, 44)
  # The same command resumes, and replaces the files.
  assert commands.run("collect", "layout", "--output", tmp_path).returncode == 0
  graph, = collections.load_collection(str(descriptor), "train")
  assert graph.config_runtime_passes.shape == (2, 44)


def test_a_file_of_synthetic_programs(tmp_path: pathlib.Path, started: list,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  done = commands.run("collect", "layout", "--output=out", "--synthetic=programs.json",
                      "--name=layout:mine")
  assert done.returncode == 0, done.stderr
  assert started == [[f"--synthetic={tmp_path / 'programs.json'}"]]
  assert files.read_json(tmp_path / "out" / "collection" / "collection.json")["name"] == (
      "layout:mine")
  assert done.stdout.startswith("1 of 1 programs kept, with 44 configurations")


def test_programs_of_an_extended_collection_are_excluded(tmp_path: pathlib.Path, started: list
                                                         ) -> None:
  assert commands.run("collect", "layout", "--output", tmp_path / "first").returncode == 0
  (tmp_path / "names").write_text("other\nanother\n")
  done = commands.run("collect", "layout", "--output", tmp_path / "second", "--extend",
                      tmp_path / "first" / "collection" / "collection.json", "--exclude",
                      tmp_path / "names")
  chosen, exclude = started[-1]
  assert chosen == f"--exclude={tmp_path / 'names'}"
  assert exclude == f"--exclude={tmp_path / 'second' / 'exclude.txt'}"
  assert pathlib.Path(exclude.partition("=")[2]).read_text() == f"another\n{STEM}\nother\n"
  # The stub measures the program nevertheless.
  assert done.returncode == 1 and "was measured again" in done.stderr


@pytest.mark.parametrize("kind", flags.KINDS)
def test_the_command_and_the_collector_have_the_same_flags(kind: str) -> None:
  done = commands.run("collect", kind, "--help")
  assert done.returncode == 0
  text = flags.parser(kind, "").format_help()
  for flag in flags.of_kind(kind):
    assert f"--{flag.name}" in text and flag.name in done.stdout, flag.name
  others = {flag.name for flag in flags.FLAGS} - {flag.name for flag in flags.of_kind(kind)}
  assert not [name for name in others if name in text]


def test_remeasuring(tmp_path: pathlib.Path) -> None:
  done = commands.run("collect", "remeasure", "--input", tmp_path / "gone.pb", "--output",
                      tmp_path / "out")
  assert done.returncode == 1 and "gone.pb" in done.stderr
