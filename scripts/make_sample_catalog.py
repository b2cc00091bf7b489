"""Write the sample catalog: about 60 short items of ten kinds and the interactions of 200 simulated users."""

import argparse
from pathlib import Path

from mmrec.sample import make_sample_catalog


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder to write into; made if missing")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(make_sample_catalog(arguments.out, seed=arguments.seed))


if __name__ == "__main__":
    main()
