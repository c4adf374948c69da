"""The reference implementation reads what we write; see `reference.check`."""

import pytest

from tests.chakra import samples
from tests.chakra.reference import check
from tpugraphs_rank.chakra import traces


def test_a_wrong_argument_is_one_line(tmp_path, capsys):
  traces.write(tmp_path / "job.0.json.gz", samples.training_step(), compress=True)
  (tmp_path / "cut.et").write_bytes(b"\x05")
  for argument, message in (
      (tmp_path / "none", "no file or folder"), ("--all", "unknown flag --all; expected names"),
      (tmp_path / "cut.et", "is cut off"),
      (tmp_path / "job.0.json.gz", f"{tmp_path}/job.0.json.gz --write job.0.et")):
    assert check.main([str(argument)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
  assert check.main(["--help"]) == 0 and "./run check-chakra" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not check.is_ready(), reason="./run check-chakra has not made its environment")
def test_the_reference_reads_our_traces(tmp_path):
  paths = check.write_samples(tmp_path / "samples")
  assert len(paths) >= 6
  assert not check.differences(paths, tmp_path)
  generated = check.generate(tmp_path / "generated")
  assert len(generated) >= 20
  assert not check.reader_differences(generated)
