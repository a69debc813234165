"""What a change costs: the figures of two runs of `make bench`, as ratios of their medians.

    python tests/benchmarks/compare.py OLD.json NEW.json [--limit 1.1]

Its status is 1 if a figure grew beyond the limit, or is missing in the new file.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path


def compare(old, new, limit):
    """Lines to print, and whether a figure grew beyond the limit or is gone."""
    lines, worse = [], False
    for name in dict.fromkeys([*old, *new]):
        before, after = (statistics.median(each[name]) if each.get(name) else None for each in (old, new))
        if before is None or after is None:
            what, bad = ("new" if before is None else "gone"), after is None
        else:
            ratio = after / before if before else 1.0 if after == before else float("inf")
            what, bad = f"{before:12.4g} {after:12.4g} {ratio:7.2f}", ratio > limit
        lines.append(f"{'!' if bad else ' '} {name:60} {what}")
        worse |= bad
    return lines, worse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--limit", type=float, default=1.1)
    options = parser.parse_args()
    old, new = (json.loads(path.read_text()) for path in (options.old, options.new))
    if old["machine"] != new["machine"]:
        print(f"two machines: {old['machine']}; {new['machine']}")
    lines, worse = compare(old["figures"], new["figures"], options.limit)
    print("\n".join(lines))
    sys.exit(worse)


if __name__ == "__main__":
    main()
