"""Every command and every Python example in the documentation works.

The pages in `pages.EXECUTED` run in one folder, one after the other, at the smallest size. A
command that several pages show runs once. Commands that need the network or hours, and those in the
text, are checked: the command and all of its flags exist.
"""

import importlib.util
import json
import pathlib
import re
import shutil

import pytest

from tests.docs import pages
from tests.helpers import commands
from tpugraphs_rank import files
from tpugraphs_rank.cli import __main__ as dispatcher

ROOT = pages.ROOT
# Flags that make a command small; they come last, and the last one counts.
SMALL = {
    "train": ("--epochs=1", "--hidden_width=8", "--num_convolutions=1", "--members=1",
              "--lists_per_graph=1", "--max_graphs=16", "--notensorboard"),
    "evaluate": ("--baselines=random",),
    "report": ("--baselines=random",),
    "layerdag train": ("--epochs=1", "--width=8", "--validate_every=1"),
    "layerdag sample": ("--count=8", "--batch=8"),
    "layerdag evaluate": ("--seeds=1", "--max_epochs=1", "--drawn=1"),
    "layerdag demo": ("--epochs=1", "--width=8", "--surrogate_epochs=1"),
    "synthesize": ("--count=2", "--config=small.json"),
    "augment": ("--seeds=1", "--epochs=1", "--steps_per_epoch=1", "--budget=4"),
}
# A few bundled kernels, which stand in for all of them where a command names no collection.
COLLECTION = "few_kernels.json"
KERNELS = {"train": 8, "valid": 3, "test": 6}
# The README trains, evaluates and reports as well.
SLOW = ("docs/tutorials/generate_graphs.md", "docs/tutorials/train_on_your_data.md")


@pytest.fixture(scope="module", name="folder")
def fixture_folder(tmp_path_factory) -> pathlib.Path:
  """A reader's folder: a checkout in which there are examples, and measured synthetic programs."""
  folder = tmp_path_factory.mktemp("reader")
  shutil.copytree(ROOT / "examples", folder / "examples")
  bundled = ROOT / "tpugraphs_rank" / "bundled" / "synthetic_tile_xla_cpu" / "layerdag"
  shutil.copytree(bundled, folder / "build" / "synthetic" / "collection")
  (folder / "small.json").write_text(json.dumps({
      "data": {"conditions": ["root", "size"]}, "network": {"width": 8},
      "fit": {"epochs": 1, "validate_every": 1}}))
  kernels = ROOT / "tpugraphs_rank" / "bundled" / "tile_xla_cpu"
  value = files.read_json(kernels / "collection.json")
  chosen = {split: sorted(path.relative_to(kernels / "npz").as_posix() for path in (
      kernels / "npz" / split).glob("*.npz"))[::17][:count] for split, count in KERNELS.items()}
  files.write_json(folder / COLLECTION, {
      **value, "name": "tile:few", "path": str(kernels / "npz"), "files": chosen,
      "splits": {split: len(names) for split, names in chosen.items()}})
  return folder


@pytest.fixture(scope="module", name="done")
def fixture_done() -> set[str]:
  """The commands and examples that earlier pages have run."""
  return set()


@pytest.mark.parametrize("page", [
    pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
    for page in pages.EXECUTED])
def test_the_page_works(page, folder, done, monkeypatch):
  monkeypatch.chdir(folder)
  for block in pages.blocks(ROOT / page):
    if not block.executed:
      continue
    if block.note:
      source, _, target = block.note.removeprefix("use ").partition(" as ")
      shutil.copy(ROOT / source, target)
    if block.language == "python" and block.text not in done:
      done.add(block.text)
      exec(compile(block.text, page, "exec"), {"__name__": "example"})
    elif block.language == "sh":
      for words in pages.command_lines(block.text):
        if words[0] == pages.NAME and words[1:] and str(words) not in done:
          done.add(str(words))
          _run(words[1:])


def _run(words: list[str]) -> None:
  name, arguments = dispatcher.find(words)
  small = list(SMALL.get(name, ()))
  if name == "train" and "--collection" not in arguments:
    small.append(f"--collection={COLLECTION}")
  result = commands.run(name, *arguments, *small)
  assert result.returncode == 0, f"{' '.join(words)}\n{result.stderr[-3000:]}"


@pytest.mark.parametrize("page", pages.all_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_flags_exist(page):
  for block in pages.blocks(page):
    if block.language == "sh":
      for words in pages.command_lines(block.text):
        _check(words)
  for words in pages.commands_in_prose(page):
    _check(words)


def test_python_examples_are_valid():
  for page in pages.all_pages():
    for block in pages.blocks(page):
      if block.language == "python":
        compile(block.text, str(page), "exec")


def test_every_command_is_listed():
  text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
  listed = {name for row in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
            for name in re.findall(r"`([a-z ]+(?:-[a-z]+)*)`", row)}
  assert set(dispatcher.COMMANDS) <= listed
  assert {name for name in listed if not name.startswith((".", "tpu"))} <= set(dispatcher.COMMANDS)


def _check(words: list[str]) -> None:
  """Checks that a command, task or module exists, and that it has these flags."""
  if words[0] == "./run":
    _check_task(words[1:])
  elif words[:2] == ["python", "-m"]:
    assert importlib.util.find_spec(words[2]), words[2]
  elif words[0] == pages.NAME:
    assert not commands.problem(words[1:])
  else:
    assert words[0] in ("pip", "uv", "pyenv", "mkdocs", "tensorboard"), words


def _check_task(words: list[str]) -> None:
  if not words or words[0].startswith("-") or words[0] in ("TASK",):
    return
  tasks = re.findall(r"^#: ([a-z-]+) ", (ROOT / "run").read_text(encoding="utf-8"), re.MULTILINE)
  assert words[0] in tasks, f"./run has no task {words[0]}"
  if words[0] == pages.NAME:
    assert not commands.problem(words[1:])
  for path in words[1:]:
    if path.startswith("tests/"):
      assert (ROOT / path).exists(), path
