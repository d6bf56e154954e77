"""What the client adds to a submit: Msg.submit against a bare stub call of the same message.

The measurement is tests/conformance/client/overhead.py, rounds of both alternating.

Run: ``python -m tests.bench.client [--rounds 30]``; 1 is the code of a missed figure.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REACH = 1.3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.client")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=100)
    given = parser.parse_args()
    command = [
        sys.executable, "-m", "tests.conformance.client.overhead",
        "--rounds", str(given.rounds), "--calls", str(given.calls),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = re.search(r"ratio (\S+)", done.stdout)
    assert found is not None, done.stdout
    met = float(found[1]) <= REACH
    print(f"{done.stdout.strip()} (reach <= {REACH}: {'met' if met else 'missed'})")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
