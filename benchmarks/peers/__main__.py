"""`python -m benchmarks.peers ...` is `dvt bench peers ...`."""

import sys

from dvt import main

if __name__ == "__main__":
    sys.exit(main(["bench", "peers", *sys.argv[1:]]))
