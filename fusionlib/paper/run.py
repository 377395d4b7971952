"""Run a profile: `python -m fusionlib.paper.run quick [--only 02] [--cores 2] [-p name=value ...]`.

Jobs (experiments) and chapters form a graph that Snakemake walks; what is already stored is left out of it, so an
interrupted run resumes. Everything lands in `build/`.
"""

import argparse
import ctypes
import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import torch
import yaml

from fusionlib import files
from fusionlib.interferometer import COVERAGE, released_data
from fusionlib.paper import conditions, store
from fusionlib.paper.chapter import (
    Chapter,
    chapter_of,
    chapters_of,
    failed_notebook,
    made_by,
    parameters_of,
    source,
)
from fusionlib.paper.experiment import arrays, device, method_of, rests_on, settings_grid, tuning
from fusionlib.paper.manifest import output
from fusionlib.paper.methods import entry
from fusionlib.paper.methods.method import is_network, with_truth
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.spec import HQS_GRID, RML_GRID, Spec, content
from fusionlib.paper.stale import reached
from fusionlib.paper.studies.headroom import milliseconds
from fusionlib.paper.tasks import Task
from fusionlib.priors import zoo
from fusionlib.selfcal import ROUNDS
from fusionlib.sky import NPIX

GRIDS = {"rml": RML_GRID, "single:identity": HQS_GRID}


@dataclass(frozen=True)
class Plan:
    """What is left: `jobs` {output: (spec as JSON, job outputs)}, `chapters` {output: (name, parameters as JSON, job
    outputs)}. Tuning is a job of its own, which scores of several kinds share."""

    profile: str
    jobs: dict[str, tuple[str, list[str]]]
    chapters: dict[str, tuple[str, str, list[str]]]


def parts_of(
    chapter: Chapter, profile: str, parameters: dict[str, Any], priors: list[str]
) -> tuple[list[Spec], list[Task]]:
    """The experiments a chapter reads and the tasks it has done, with the priors that can be loaded."""
    options = {k: parameters[k] for k in ("sky", "observation", "objects") if k in parameters}
    tasks = chapter.tasks(profile, priors, **options) if chapter.tasks else []
    return chapter.specs(profile, priors, **options), tasks


def usable(parameters: dict[str, Any]) -> list[str]:
    """The priors of a run that can be loaded."""
    return zoo.available(parameters.get("priors", zoo.BANKS["main"]))[0]


def make_plan(profile: str, only: list[str], parameters: dict[str, Any]) -> Plan:
    """The graph of `profile`. Raises ValueError for unknown profiles, chapters or parameters."""
    profile_of(profile)
    chapters = [chapter_of(name) for name in only] or chapters_of(profile)
    known = {c.name: set(parameters_of(c.name)) for c in chapters}
    if unknown := set(parameters).difference(*known.values()):
        raise ValueError(
            f"no chapter has a parameter {sorted(unknown)}; there are {sorted(set().union(*known.values()))}"
        )
    priors = usable(parameters)
    jobs: dict[str, tuple[str, list[str]]] = {}
    graph: dict[str, tuple[str, str, list[str]]] = {}
    for chapter in chapters:
        if profile not in chapter.budget:
            raise ValueError(f"chapter {chapter.name} has no profile {profile}; it has {sorted(chapter.budget)}")
        mine = {k: v for k, v in parameters.items() if k in known[chapter.name]}
        specs, tasks = parts_of(chapter, profile, mine, priors)
        wanted = [*specs, *(s for task in tasks for s in task.specs)]
        for s in {s.key: s for s in wanted if not store.has(s.key)}.values():
            _add(jobs, s)
        for task in tasks:
            if not store.has(task.key):
                needs = sorted({str(store.here(s.key)) for s in task.specs} & set(jobs))
                jobs[str(store.here(task.key))] = (json.dumps(task.to_dict()), needs)
        keys = sorted({s.key for s in specs} | {task.key for task in tasks})
        inputs = [content(mine.get(name, "")) for name in ("sky", "observation")]
        if "observation" in known[chapter.name]:
            readable = importlib.util.find_spec("ehtim") is not None
            inputs += [content(str(path)) for path in released_data()] + [str(readable)]
        if chapter.also:
            options = {k: v for k, v in mine.items() if k == "sky"}
            beside = chapter.also(priors, **options)
            inputs += [s.key for s in beside if store.has(s.key)]
        script = source(chapter.name).read_text()
        key = files.digest([script, reached(script), mine, inputs, keys])
        done = output(profile) / ".done" / f"{chapter.name}-{key}"
        if not (done.exists() and _whole(chapter, profile)):
            done.unlink(missing_ok=True)
            failed_notebook(chapter.name, profile).unlink(missing_ok=True)
            needs = [str(store.here(part)) for part in keys if not store.has(part)]
            graph[str(done)] = (chapter.name, json.dumps(mine), needs)
    return Plan(profile, jobs, graph)


def _add(jobs: dict[str, tuple[str, list[str]]], spec: Spec) -> None:
    """An experiment as a job, and before it those that it rests on and that are not stored."""
    before = [s for s in rests_on(spec) if not store.has(s.key)]
    for s in before:
        _add(jobs, s)
    jobs[str(store.here(spec.key))] = (json.dumps(asdict(spec)), [str(store.here(s.key)) for s in before])


def _whole(chapter: Chapter, profile: str) -> bool:
    """Whether all that the chapter made last time is still there, unchanged."""
    facts = output(profile) / f"{chapter.name}.json"
    return facts.exists() and json.loads(facts.read_text())["made"] == made_by(chapter.name, profile)


def estimate(plan: Plan) -> float:
    """Expected job seconds on one core: prior calls, data steps and RML as timed now on a blank image, and rough
    allowances for learning."""
    prior_seconds: dict[str, float] = {}
    rates: dict[tuple[str, str], float] = {}
    total = 0.0
    for text, _ in plan.jobs.values():
        if "task" in (given := json.loads(text)):
            total += 20.0
            continue
        s = Spec.from_dict(given)
        kind, n = s.method.partition(":")[0], max(len(s.priors), 1)
        for name in set(s.priors) - set(prior_seconds):
            alone = 0.0 if is_network(name) else milliseconds(zoo.load(name).to(device()), batch=8)
            prior_seconds[name] = alone / 1e3
        base = "rml" if kind == "rml" else "single:identity"
        if (base, s.regime) not in rates:
            array = arrays(replace(s, coverage=1.0))[0]
            y = array.observe(torch.full((4, 1, NPIX, NPIX), 0.03, device=device()), 0)
            like = replace(s, method=base, priors=() if base == "rml" else ("identity",), steps=4, grid=GRIDS[base])
            x, settings = torch.zeros(4, 1, NPIX, NPIX, device=device()), settings_grid(like)[0]
            timed = [with_truth(method_of(like), x).run(settings, {}, array, y, None).seconds for _ in range(2)]
            rates[base, s.regime] = min(timed) / 16  # the first time more than once is done
        calls = {"noise_levels": 7, "closed_levels": 7, "closed_union": n + 5}.get(kind, n) / n
        rounds = ROUNDS + 1 if s.regime == "self-calibrated" else 1
        rate = rounds * s.steps * (rates[base, s.regime] + calls * sum(prior_seconds[name] for name in s.priors))
        lists = len(COVERAGE[s.coverage]) if not s.observation else 1
        method = entry(s.method)
        fits = method.grid not in ("hqs", "rml")
        labels = s.n_train * (2 + conditions.FREE * len(conditions.SIMULATED) if s.fit else 1)
        images = s.n_test * lists if s.n_test else len(settings_grid(s)) * labels / 2 * (2 if fits else 1)
        learns = method.seconds * (4 if s.method.endswith(":pixel") else 1)
        total += images * rate + 4 + (0.0 if s.n_test else learns)
    return total


def report(profile: str, only: list[str], plan: Plan, cores: int, parameters: dict[str, Any]) -> bool:
    """Print chapter, status, seconds against budget, figures; true if every chapter is done."""
    rows, good, priors = [], True, usable(parameters)
    for chapter in [chapter_of(name) for name in only] or chapters_of(profile):
        facts_path = output(profile) / f"{chapter.name}.json"
        left = [done for done, (name, *_) in plan.chapters.items() if name == chapter.name and not Path(done).exists()]
        if left:
            good = False
            failed = failed_notebook(chapter.name, profile)
            status = f"FAILED, see {failed.relative_to(files.home())}" if failed.exists() else "not run: a job failed"
            rows.append((chapter.name, status, "", ""))
            continue
        facts = json.loads(facts_path.read_text())
        status = "done" if any(name == chapter.name for name, *_ in plan.chapters.values()) else "up to date"
        specs, tasks = parts_of(chapter, profile, parameters, priors)
        parts: list[Spec | Task] = [*{*specs, *map(tuning, specs)}, *tasks]
        jobs = sum(map(job_seconds, parts)) / cores
        made = ", ".join(Path(m).stem for m in facts["made"] if not m.endswith(".npz"))
        rows.append((chapter.name, status, f"{facts['seconds'] + jobs:.0f} / {chapter.budget[profile]}", made))
    head = ("chapter", "status", "seconds / budget", "figures and tables")
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(4)]
    print()
    for row in [head, *rows]:
        print("  ".join(str(v).ljust(w) for v, w in zip(row, widths, strict=True)).rstrip())
    print(f"\nresults: {output(profile).relative_to(files.home())}/figures, tables, notebooks")
    return good


def job_seconds(part: Spec | Task, *, published: bool = False) -> float:
    """What the job of an experiment took on one core; 0 if it was not done here, or, `published`, is in no store."""
    key = part.key
    if not store.here(key).exists() and not (published and store.has(key)):
        return 0.0
    return float(store.load(key).get("job_seconds", 0.0))


def told(plan: Plan) -> str:
    """The plan in words, a line per job and chapter."""
    lines = [f"{plan.profile}: {len(plan.jobs)} jobs and {len(plan.chapters)} chapters to do"]
    for text, _ in plan.jobs.values():
        given = json.loads(text)
        if "task" in given:
            lines.append(f"  {given['task']}")
        else:
            size = f"{given['n_test']} images" if given["n_test"] else "tuning"
            priors = "+".join(given["priors"])
            lines.append(f"  {given['method']}, {given['regime']}, coverage {given['coverage']}, {priors}, {size}")
    return "\n".join([*lines, *(f"  chapter {name}" for name, *_ in plan.chapters.values())])


def _die_with_parent() -> None:
    """Linux: have this child killed when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


TOGETHER = {"smoke": 24}  # jobs that one process does, one after the other: there starting it is what costs


def groups(plan: Plan) -> list[tuple[list[str], list[str], list[str]]]:
    """The jobs as the graph has them: specs, outputs, and outputs of other groups that they need. Every job stands
    after those it needs, so that groups of consecutive jobs make no circle."""
    order = TopologicalSorter({path: [n for n in needs if n in plan.jobs] for path, (_, needs) in plan.jobs.items()})
    size, paths = TOGETHER.get(plan.profile, 1), list(order.static_order())
    made = []
    for first in range(0, len(paths), size):
        mine = paths[first : first + size]
        needs = {need for path in mine for need in plan.jobs[path][1]}
        made.append(([plan.jobs[path][0] for path in mine], mine, sorted(needs - set(mine))))
    return made


def walk(plan: Plan, cores: int) -> None:
    """Let Snakemake do the plan; job and chapter lines go to the terminal, the rest to `build/<profile>/run.log`."""
    out = output(plan.profile)
    todo = files.folder("build", plan.profile, ".graph") / "plan.json"
    files.folder("build", plan.profile, ".done")
    files.folder("build", "scores")
    todo.write_text(json.dumps({"profile": plan.profile, "groups": groups(plan), "chapters": plan.chapters}))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(files.source("notebooks", "Snakefile"))]
    command += ["--directory", str(todo.parent), "--cores", str(cores), "--config", f"plan={todo}"]
    command += ["--rerun-incomplete", "--keep-going", "--nolock", "--rerun-triggers", "mtime"]
    command += ["--quiet", "rules", "progress"]
    environment = {
        **os.environ,
        "FUSIONLIB_RUNNER": str(os.getpid()),
        "FUSIONLIB_HOME": str(files.home()),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(files.folder("build", "cache", "xdg")),
    }
    with open(out / "run.log", "w") as log:
        subprocess.run(command, stderr=log, env=environment, preexec_fn=_die_with_parent, stdin=subprocess.DEVNULL)


def read_parameters(given: list[str]) -> dict[str, Any]:
    """`name=value` pairs: paths as typed, made absolute; `priors` a list in brackets; others as YAML.

    Raises ValueError for a pair without a name, `profile`, a missing path, or what is no YAML.
    """
    parameters: dict[str, Any] = {}
    for name, equals, value in (p.partition("=") for p in given):
        if not name or not equals:
            raise ValueError(f"-p {name}: NAME=VALUE is needed")
        if name == "profile":
            raise ValueError("profile is no parameter of a run: give it as the first argument")
        if name in ("sky", "observation"):
            path = Path(value).expanduser().resolve()
            if value and not path.exists():
                raise ValueError(f"parameter {name}: there is no file or folder {path}")
            parameters[name] = str(path) if value else ""
        elif name == "priors":
            inside = re.fullmatch(r"\s*\[(.*)\]\s*", value, re.DOTALL)
            names = [part.strip().strip("\"'") for part in inside[1].split(",")] if inside else []
            parameters[name] = [_absolute(n) if zoo.is_own(n) else n for n in names] if inside else value
        else:
            try:
                parameters[name] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ValueError(f"parameter {name}: {value!r} is no YAML ({' '.join(str(error).split())})") from None
    return parameters


def _absolute(prior: str) -> str:
    path, _, name = prior.rpartition(":")
    return f"{Path(path).expanduser().resolve()}:{name}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fusionlib.paper.run", description=__doc__)
    parser.add_argument("profile", choices=["smoke", "quick", "wide", "paper"])
    parser.add_argument(
        "--only", action="append", default=[], metavar="NN", help="a chapter, by number; may be repeated"
    )
    parser.add_argument(
        "--cores", type=int, default=min(2, os.cpu_count() or 1), help="jobs at a time, one thread each"
    )
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="notebook parameter"
    )
    parser.add_argument("--plan", action="store_true", help="print what is to be done, and do nothing")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        parameters = read_parameters(args.parameters)
        out = output(args.profile)
        with open(out / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"another run of profile {args.profile} is at work in {out}; wait for it") from None
            _, lacking = zoo.available(parameters.get("priors", zoo.BANKS["main"]))
            for name, reason in lacking.items():
                print(f"prior {name} is left out: {reason}")
            plan = make_plan(args.profile, args.only, parameters)
            if args.plan:
                print(told(plan))
                return 0
            if plan.jobs or plan.chapters:
                minutes = estimate(plan) / args.cores / 60
                print(
                    f"{args.profile}: {len(plan.jobs)} jobs and {len(plan.chapters)} chapters to do, "
                    f"about {minutes:.0f} min on {args.cores} cores",
                    flush=True,
                )
                walk(plan, args.cores)
            good = report(args.profile, args.only, plan, args.cores, parameters)
            if not good:
                print(f"details: {(out / 'run.log').relative_to(files.home())}")
            return 0 if good else 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
