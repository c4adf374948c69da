"""`python -m tpugraphs_rank.collect.hlo`: measures the program of a prepared folder."""

import sys

from tpugraphs_rank.collect.hlo import collect

if __name__ == "__main__":
  sys.exit(collect.main())
