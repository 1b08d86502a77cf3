"""python -m benchmarks [NAME ...] [--quick] [--json]: every promise, what was reached, and whether that keeps it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from dataclasses import asdict

from .report import Failed, LeftOut, Row, table

NAMES = (
    *("predict", "chunks", "neighbour", "cancel", "liveness", "chatty", "footprint", "start"),
    *("llm", "llamacpp", "embeddings", "onnx_embeddings", "vectors"),
)
STORMS = ("chaos", "signals", "reloads", "overload", "soak")  # what it survives: these are run by name
BESIDE = ("peers", "batching", "rows")  # take environments of their own


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = (*NAMES, *STORMS, *BESIDE)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}, which are the default, and "
                        f"{', '.join((*STORMS, *BESIDE))}")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a promise is not kept")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object a benchmark")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"no benchmark named {unknown[0]!r} (have: {', '.join(known)})")
    if not args.json:
        print(_machine())
    failed = False
    for name in args.names or NAMES:
        module = importlib.import_module(f".{name}", __package__)
        rows: list[Row] = []
        reason = ""
        try:
            rows = module.run(quick=args.quick)
        except LeftOut as missing:
            reason = f"left out: {missing}"
        except Failed as error:
            rows, reason, failed = list(error.rows), f"failed: {error}", True
        except Exception as error:
            reason, failed = f"failed: {error}", True
        failed = failed or (args.strict and any(row.kept is False for row in rows))
        if args.json:
            print(json.dumps({"benchmark": name, "rows": [asdict(row) for row in rows], "why_not": reason or None}))
        else:
            print(f"\n{module.__doc__.partition(chr(10))[0]}\n  alone: python -m benchmarks {name}\n")
            print("\n".join(filter(None, (table(rows) if rows else "", reason and f"  {reason}"))))
        sys.stdout.flush()
    sys.exit(failed)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    machine = f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}"
    if load > cores / 2:
        machine += f"\nThis machine is busy (load {load:.1f}): figures by the clock are worse than they would be."
    return machine


if __name__ == "__main__":
    main()
