"""The submission commands: what they print, write and return."""

import json
import random
import subprocess
import sys

import pandas as pd
import pytest

from tests import public_tree
from tests import testdata
from tests.helpers import commands
from tpugraphs_rank import submission
from tpugraphs_rank.submission import public_graphs

SIZES = {"tile:xla": 844, "layout:xla:default": 8, "layout:xla:random": 8,
         "layout:nlp:default": 17, "layout:nlp:random": 17}


@pytest.fixture(autouse=True)
def _no_data(monkeypatch, tmp_path):
  """The data of the developer must not be used."""
  monkeypatch.setenv("TPUGRAPHS_RANK_DATA", str(tmp_path / "no_data"))


def _run(command, *arguments):
  return commands.run(f"submission {command}", *arguments)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  root = tmp_path_factory.mktemp("tree")
  public_tree.write_tree(root, splits=["test"])
  public_tree.write_tree(root, collections=["layout:xla:default", "layout:xla:random"],
                         splits=["valid"])
  return root


def _rows(expectation):
  return [submission.Row(row.id, list(range(row.num_configs))[::-1][:row.length])
          for row in expectation.rows]


@pytest.fixture(scope="module")
def parts(tree, tmp_path_factory):
  """A part for each collection, by its name."""
  folder = tmp_path_factory.mktemp("parts")
  paths = {}
  for name in SIZES:
    paths[name] = folder / f"{name.replace(':', '_')}.csv"
    submission.write(paths[name], _rows(submission.from_data([name], data_root=tree)))
  return paths


def _joined(parts):
  return ",".join(map(str, parts))


def test_parts_to_a_valid_submission_of_894_rows(tree, parts, tmp_path):
  output = tmp_path / "submission.csv"
  done = _run("merge", "--parts", _joined(reversed(parts.values())), "--output", output,
              "--data_root", tree)
  assert done.returncode == 0 and done.stderr == "", done.stderr
  lines = done.stdout.splitlines()
  assert [line.split() for line in lines[:-1]] == [
      [name, str(count), "of", str(count), "rows"] for name, count in SIZES.items()]
  assert lines[-1] == f"{output}: {sum(SIZES.values())} rows"
  assert output.read_bytes() == submission.render(_rows(submission.from_data(data_root=tree)))

  valid = _run("validate", "--submission", output, "--data_root", tree)
  assert valid.returncode == 0 and valid.stderr == ""
  assert valid.stdout.splitlines() == [*lines[:-1], f"{output} is valid: 894 rows"]
  # The file is valid when it is its own sample, and against both.
  sampled = _run("validate", "--submission", output, "--sample", output)
  assert sampled.returncode == 0 and sampled.stdout.splitlines() == [
      *lines[:-1], "numbers of configurations of 894 graphs: 894 unknown",
      f"{output} is valid: 894 rows"]
  both = _run("validate", "--submission", output, "--sample", output, "--data_root", tree)
  assert both.returncode == 0 and both.stdout == valid.stdout


def test_the_faults_of_an_invalid_submission_name_their_lines(tree, parts, tmp_path):
  path = tmp_path / "bad.csv"
  data = parts["layout:xla:random"].read_bytes()
  lines = data.splitlines(keepends=True)
  name = lines[3].partition(b",")[0].decode()
  path.write_bytes(b"".join([*lines[:3], lines[3].replace(b";7;", b";8;"), *lines[4:-1]]))
  done = _run("validate", "--submission", path, "--data_root", tree, "--collections",
              "layout:xla:random")
  assert done.returncode == 1 and done.stderr == ""
  first, second, counts, verdict = done.stdout.splitlines()
  assert first.startswith(f"line 4: {name}: index 8 is repeated at entries ")
  assert second == f"line 9: {lines[-1].partition(b',')[0].decode()}: the row is missing"
  assert counts.split() == ["layout:xla:random", "7", "of", "8", "rows"]
  assert verdict == f"{path} is invalid: 2 faults on 2 lines"


def test_an_invalid_file_is_never_written(tree, parts, tmp_path):
  other = tmp_path / "other.csv"
  output = tmp_path / "out" / "submission.csv"
  data = parts["layout:xla:default"].read_bytes().splitlines(keepends=True)
  name, _, indices = data[1].decode().rstrip().partition(",")
  other.write_bytes(b"".join([
      data[0], f"{name},{';'.join(sorted(indices.split(';'), key=int))}\n".encode()]))
  done = _run("merge", "--parts", _joined([*parts.values(), other]), "--output", output,
              "--data_root", tree)
  assert done.returncode == 1 and not output.parent.exists()
  assert done.stdout.splitlines() == [
      f"{other}: line 2: {name}: conflicts with {parts['layout:xla:default']}, line 2, which ranks "
      "the graph differently; leave one of the two parts out"]
  assert done.stderr == f"error: 1 fault; {output} was not written\n"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
  """The competition's sample: its IDs in its order, with its lists, which are placeholders."""
  path = tmp_path_factory.mktemp("official") / "sample_submission.csv"
  submission.write(path, [
      submission.Row(name, range(5 if name.startswith("tile:") else 1000))
      for name in public_graphs.configurations()])
  return path


def _real_rows():
  """A ranking of each of the 894 test graphs; as many of the kernels are small as really are."""
  rng = random.Random(0)
  small = iter([size for size, number in public_graphs.SMALL_KERNELS["tile:xla"].items()
                for _ in range(number)])
  for name, count in public_graphs.configurations().items():
    count = next(small, 30) if count is None else count
    yield name, rng.sample(range(count), count)


@testdata.required
def test_the_official_sample_is_as_these_tests_build_it(official):
  assert official.read_bytes() == testdata.path("tpugraphs_npz/sample_submission.csv").read_bytes()


def test_the_official_sample_is_a_placeholder(official):
  for arguments in ([], ["--sample", official]):
    done = _run("validate", "--submission", official, *arguments)
    assert done.returncode == 1 and done.stderr == ""
    faults, counts = done.stdout.splitlines()[:4], done.stdout.splitlines()[4:]
    assert faults[0].startswith("line 3: tile:xla: 843 rows list 5 indices or more, but 827 of ")
    assert faults[1:3] == [
        f"line {line}: {name}: 1000 indices; expected all 1001 of its 1001 configurations"
        for line, name in ((859, "layout:xla:random:937ee0eb0d5d6151b7b8252933b5c1c9"),
                           (878, "layout:nlp:default:3a0c5517a87df8d82fd637b83298a3ba"))]
    assert faults[3].startswith("warning: line 2: all rows of tile:xla, layout:xla:default, ")
    assert [line.split() for line in counts[:5]] == [
        [name, str(count), "of", str(count), "rows"] for name, count in SIZES.items()]
    assert counts[5:] == [
        "numbers of configurations of 894 graphs: 51 from the published facts, 843 unknown",
        f"{official} is invalid: 3 faults on 3 lines"]


@pytest.mark.parametrize("order", ["sample", "collection", "reversed", "shuffled"])
@pytest.mark.parametrize("as_written_by", ["this project", "another program"])
def test_a_real_submission_is_valid_in_any_order(official, tmp_path, order, as_written_by):
  own = as_written_by == "this project"
  rows = [(name, ranking[:5] if own and name.startswith("tile:") else ranking)
          for name, ranking in _real_rows()]
  canonical = submission.render(
      submission.Row(name, ranking[:5] if name.startswith("tile:") else ranking)
      for name, ranking in rows)
  if order == "shuffled":
    random.Random(1).shuffle(rows)
  elif order != "sample":
    rows.sort(reverse=order == "reversed")
  path, fixed = tmp_path / "submission.csv", tmp_path / "fixed.csv"
  data = submission.render(submission.Row(name, ranking) for name, ranking in rows)
  path.write_bytes(data if own else b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")[:-2])
  for arguments in ([], ["--sample", official]):
    done = _run("validate", "--submission", path, *arguments)
    assert done.returncode == 0, done.stdout
    *_, verdict = [line for line in done.stdout.splitlines() if " is valid: " in line]
    assert verdict == f"{path} is valid: 894 rows" + ("" if own else ", 4 warnings")
    strict = _run("validate", "--submission", path, "--strict", *arguments)
    assert strict.returncode == (0 if own else 1)
  done = _run("fix", "--submission", path, "--output", fixed, "--sample", official)
  assert done.returncode == 0 and fixed.read_bytes() == canonical
  assert done.stdout.splitlines()[-1] == f"{fixed}: 894 rows, " + (
      "unchanged" if path.read_bytes() == canonical else "in the canonical form")
  merged = tmp_path / "merged.csv"
  done = _run("merge", "--parts", path, "--output", merged, "--sample", official)
  assert done.returncode == 0 and merged.read_bytes() == canonical
  assert done.stdout.count("warning: ") == (0 if own else 4)
  done = _run("validate", "--submission", fixed, "--strict", "--sample", official)
  assert done.returncode == 0


def test_a_file_with_faults_is_not_fixed(official, tmp_path):
  path = tmp_path / "bad.csv"
  rows = [submission.Row(name, ranking) for name, ranking in _real_rows()]
  data = submission.render(rows).replace(b"\n", b"\r\n").splitlines(keepends=True)
  path.write_bytes(b"".join([*data[:7], data[6], *data[7:-1]]))
  done = _run("fix", "--submission", path, "--output", tmp_path / "f.csv", "--sample", official)
  assert done.returncode == 1 and not (tmp_path / "f.csv").exists()
  repeated, missing, *warnings = done.stdout.splitlines()
  assert repeated == f"line 8: {rows[5].id}: the ID already appears on line 7; expected it once"
  assert missing == f"line 896: {rows[-1].id}: the row is missing"
  assert [line.partition(": ")[0] for line in warnings] == ["warning"] * 2
  assert done.stderr == (f"error: 2 faults, whose correction is not clear; {tmp_path / 'f.csv'} "
                         f"was not written: correct them in {path}\n")


def test_fewer_collections_only_on_request(tree, parts, tmp_path):
  output = tmp_path / "partial.csv"
  some = [parts["tile:xla"], parts["layout:nlp:random"]]
  arguments = ["merge", "--parts", _joined(some), "--output", output, "--data_root", tree]
  refused = _run(*arguments)
  assert refused.returncode == 1 and not output.exists()
  assert [line.split(": ")[1] for line in refused.stdout.splitlines()] == [
      "layout:xla:default", "layout:xla:random", "layout:nlp:default"]
  assert refused.stderr == f"error: 3 faults; {output} was not written\n"
  done = _run(*arguments, "--allow_partial")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-2:] == [
      "partial: without layout:xla:default, layout:xla:random, layout:nlp:default",
      f"{output}: {844 + 17} rows"]
  valid = ["validate", "--submission", output, "--data_root", tree]
  assert _run(*valid).returncode == 1
  done = _run(*valid, "--allow_partial")
  assert done.returncode == 0 and "partial: without layout:xla:default" in done.stdout


def test_the_score_of_collections_whose_runtimes_are_known(tree, tmp_path):
  path = tmp_path / "valid.csv"
  names = ["layout:xla:default", "layout:xla:random"]
  submission.write(path, _rows(submission.from_data(names, "valid", tree)))
  done = _run("score", "--submission", path, "--data_root", tree)
  assert done.returncode == 0 and done.stderr == "", done.stderr
  folder = tmp_path / "valid.score"
  stored = json.loads((folder / "score.json").read_text())
  assert stored["split"] == "valid" and list(stored["collections"]) == names
  assert stored["missing"] == ["tile:xla", "layout:nlp:default", "layout:nlp:random"]
  rows = pd.read_csv(folder / "per_graph.csv")
  assert list(rows) == ["collection", "graph", "configurations", "score"] and len(rows) == 14
  assert rows[rows["graph"] == "unet_3d.4x4.bf16"]["configurations"].to_list()[-1] == 481
  means = rows.groupby("collection")["score"].mean()
  by_collection = pd.read_csv(folder / "per_collection.csv").set_index("collection")
  for name in names:
    assert stored["collections"][name]["score"] == pytest.approx(means[name])
    assert by_collection["score"][name] == pytest.approx(means[name])
    assert by_collection["graphs"][name] == 7
  assert stored["score"] is None and stored["partial"] == pytest.approx(means.mean())
  assert "missing: tile:xla, layout:nlp:default, layout:nlp:random" in done.stdout.splitlines()
  assert f"mean of 2 collections: {means.mean():.4f} (the competition score needs" in done.stdout

  other = _run("score", "--submission", path, "--data_root", tree, "--output", tmp_path / "o",
               "--collections", ",".join(names))
  assert f"competition score (valid): {means.mean():.4f}" in other.stdout.splitlines()
  assert json.loads((tmp_path / "o" / "score.json").read_text())["missing"] == []


def test_a_test_split_cannot_be_scored(tree, parts):
  done = _run("score", "--submission", parts["layout:xla:random"], "--split", "test",
              "--data_root", tree)
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr.startswith("error: none of the 8 graphs of layout:xla:random test has runt")
  assert not list(parts["layout:xla:random"].parent.glob("*.score"))


@pytest.mark.parametrize("arguments, status, message", [
    (["valdate"], 2, "error: unknown command 'submission valdate' (did you mean 'submission val"),
    (["score", "--submission", "s.csv", "--sample", "t.csv"], 2,
     "error: Unknown command line flag 'sample'"),
    (["merge", "--output", "s.csv"], 2, "error: --parts is required"),
    (["validate", "--submission", "/gone.csv"], 1, "error: no file /gone.csv; `"),
    (["validate", "--submission", "{part}", "--sample", "{part}", "--partial"], 1,
     "error: --sample and --partial; the sample alone defines the rows"),
    (["validate", "--submission", "{part}", "--sample", "{part}", "--collections", "tile:xla"], 1,
     "error: sample {part} has no row of tile:xla; it has: layout:xla:random; check --collections"),
    (["fix", "--submission", "{part}", "--output", "{part}"], 1,
     "error: --output is the file that is read, {part}; choose another name"),
    (["validate", "--submission", "{part}", "--sample", "/gone.csv"], 1, "error: no file /gone"),
    (["validate", "--submission", "{part}", "--data_root", "/gone"], 1,
     "error: no data of tile:xla test at /gone/npz/tile/xla/test"),
    (["validate", "--submission", "{part}", "--collections", "tile:xl"], 1,
     "error: no collection 'tile:xl' (did you mean 'tile:xla'?)"),
    (["validate", "--submission", "{part}", "--collections", "tile:xla_cpu", "--allow_partial"], 1,
     "error: no row belongs to tile:xla_cpu; give --collections"),
])
def test_a_mistake_is_one_line(parts, arguments, status, message):
  done = _run(*(str(argument).format(part=parts["layout:xla:random"]) for argument in arguments))
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(message.format(part=parts["layout:xla:random"]))
  assert done.stderr.count("\n") == 1


def test_joining_and_checking_import_no_tensorflow():
  code = ("import sys; from tpugraphs_rank.cli import submission_merge, submission_validate, "
          "submission_fix, submission_score; print('tensorflow' in sys.modules)")
  done = subprocess.run([sys.executable, "-c", code], cwd=commands.ROOT, capture_output=True,
                        text=True, check=True)
  assert done.stdout == "False\n"
