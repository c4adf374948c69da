"""Tuning one program: ask for a configuration, measure it anywhere, tell the time, repeat.

    import tpugraphs_rank as tgr
    tuner = tgr.tune.Tuner(tgr.tune.layout_space("my_program.pb"), seed=1)
    while not tuner.finished and len(tuner.history) < 40:
      configuration = tuner.ask()
      tuner.tell(configuration, my_measurement(configuration))
    print(tuner.best)

The names below are the public ones. Measuring is up to the caller; the command `tune` measures on
this machine's CPU.
"""

from tpugraphs_rank.tuning.gaussian_process import GaussianProcess
from tpugraphs_rank.tuning.loading import load
from tpugraphs_rank.tuning.spaces import layout_space
from tpugraphs_rank.tuning.spaces import LayoutSpace
from tpugraphs_rank.tuning.spaces import PoolSpace
from tpugraphs_rank.tuning.spaces import Space
from tpugraphs_rank.tuning.tuner import Measurement
from tpugraphs_rank.tuning.tuner import Tuner

__all__ = [
    "GaussianProcess",
    "LayoutSpace",
    "Measurement",
    "PoolSpace",
    "Space",
    "Tuner",
    "layout_space",
    "load",
]
