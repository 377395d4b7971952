"""One job, a Spec or a Task as JSON: `python -m fusionlib.paper SPEC`.

Or one chapter: `python -m fusionlib.paper chapter NAME PROFILE PARAMETERS DONE`. For the Snakefile; prints a line.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

import fusionlib.paper  # noqa: F401  (its modules record their functions)
from fusionlib.paper.experiment import Spec, Task, scores


def die_with_runner() -> None:
    """End this process when the runner that started the graph (FUSIONLIB_RUNNER) is gone, killed or not."""
    runner = os.environ.get("FUSIONLIB_RUNNER")
    if not runner:
        return

    def watch() -> None:
        while True:
            try:
                os.kill(int(runner), 0)
            except OSError:
                os._exit(1)
            time.sleep(1)

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str]) -> int:
    die_with_runner()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_flush_denormal(True)
    began = time.perf_counter()
    what = " ".join(argv[1:2]) if argv[:1] == ["chapter"] else "job"
    try:
        if what != "job":
            from fusionlib.paper.chapter import run_chapter

            name, profile, parameters, done = argv[1:]
            for stale in Path(done).parent.glob(f"{name}-*"):  # what it says is about to be overwritten
                stale.unlink()
            run_chapter(name, profile, json.loads(parameters))
            Path(done).touch()
            line = f"chapter {name}"
        elif "task" in (given := json.loads(argv[0])):
            task = Task.from_dict(given)
            what = f"{task.name}, {', '.join(s.method for s in task.specs[:3])}"
            task.result()
            line = f"{what}: done"
        else:
            spec = Spec.from_dict(given)
            what = f"{spec.method}, {spec.regime}, coverage {spec.coverage}, seed {spec.seed}"
            record = scores(spec)
            if spec.n_test:
                done = f"{record['psnr'].mean():.2f} dB on {spec.n_test} {spec.family or spec.split} images"
            else:
                done = f"tuned, {record['psnr_train']:.2f} dB on {spec.n_train} training images"
                done = "fitted" if np.isnan(record["psnr_train"]) else done
            line = f"{what}: {done}"
    except (ValueError, RuntimeError, json.JSONDecodeError, IndexError) as error:
        print(f"  FAILED {what}: {error}", flush=True)
        return 1
    print(f"  {line}  ({time.perf_counter() - began:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
