"""The long fuzz of the lean engine: a million inputs, and ``make fuzz`` for more or other ones.

Run: ``python -m tests.fuzz [--inputs N] [--seed N]``; a failure names the seed that repeats it.
"""

import argparse
import random
import resource
import sys
import time

from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="shared by the targets")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    options = parser.parse_args()
    inputs = bad = 0
    whole = sum(target.share for target in TARGETS)
    for target in TARGETS:
        started, done, seed = time.monotonic(), 0, options.seed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while done < options.inputs * target.share / whole:
            try:
                done += target.run(random.Random(seed))
            except Exception as exc:
                bad += 1
                print(f"{target.name}, seed {seed}: {exc!r}", flush=True)
            seed += 1
        inputs += done
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        took = time.monotonic() - started
        print(
            f"{target.name}: {done:,} inputs of {seed - options.seed:,} connections,"
            f" {took:.0f} s, {grown:,} KiB more memory",
            flush=True,
        )
    print(f"{inputs:,} inputs, {bad} failures")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
