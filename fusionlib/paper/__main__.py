"""One job, a Spec or a Task as JSON: `python -m fusionlib.paper SPEC`.

Or one chapter: `python -m fusionlib.paper chapter NAME PROFILE PARAMETERS DONE`. For the Snakefile; prints a line.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

import fusionlib.paper  # noqa: F401  (its modules record their functions)
from fusionlib.paper.experiment import scores
from fusionlib.paper.spec import Spec
from fusionlib.paper.tasks import Task


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
    if argv[:1] == ["chapter"]:
        return told(f"chapter {argv[1]}", lambda: chapter(*argv[1:]))
    return max([told("job", partial(job, text)) for text in argv], default=1)


def told(what: str, work: Callable[[], str]) -> int:
    """Do it and print a line; 1 if it failed, with what it says."""
    began = time.perf_counter()
    try:
        line = work()
    except (ValueError, RuntimeError, json.JSONDecodeError) as error:
        print(f"  FAILED {what}: {error}", flush=True)
        return 1
    print(f"  {line}  ({time.perf_counter() - began:.0f} s)", flush=True)
    return 0


def chapter(name: str, profile: str, parameters: str, done: str) -> str:
    from fusionlib.paper.chapter import run_chapter

    for stale in Path(done).parent.glob(f"{name}-*"):  # what it says is about to be overwritten
        stale.unlink()
    run_chapter(name, profile, json.loads(parameters))
    Path(done).touch()
    return f"chapter {name}"


def job(text: str) -> str:
    """Compute one record, and say what it is."""
    if "task" in (given := json.loads(text)):
        task = Task.from_dict(given)
        task.result()
        return f"{task.name}, {', '.join(s.method for s in task.specs[:3])}: done"
    spec = Spec.from_dict(given)
    what = f"{spec.method}, {spec.regime}, coverage {spec.coverage}, seed {spec.seed}"
    try:
        record = scores(spec)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{what}: {error}") from error
    if spec.n_test:
        return f"{what}: {record['psnr'].mean():.2f} dB on {spec.n_test} {spec.family or spec.split} images"
    tuned = f"tuned, {record['psnr_train']:.2f} dB on {spec.n_train} training images"
    return f"{what}: {'fitted' if np.isnan(record['psnr_train']) else tuned}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
