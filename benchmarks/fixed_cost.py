"""What a run costs besides its work: the same plan of empty notebooks with warm workers and without, in turns

    python benchmarks/fixed_cost.py [--runs 12] [--rounds 3] [--jobs 2] [--result FILE]

The notebooks import what the step `stage` imports, open a run and finish it. A plan of two such notebooks and one of
`--runs` are made with and without warm workers, all four in turns; the fixed cost of a run is the difference of the
larger and the smaller plan, divided by the runs between them, so that what is paid once is not in it. CPU
seconds are those of the whole machine (/proc/stat): a fork of the warm process is nobody's child, so let nothing else
run. What `radinet reproduce` says of itself in its closing line, in whole seconds, stands beside them; it counts its
own processes only. Medians over rounds; results go to benchmarks/fixed_cost.json.
"""
import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from radinet_nb.data.notebooks import checkout
from radinet_nb.data.runs import commit, versions

HERE = Path(__file__).parent
GRAPH = '''#| export
def graph(g):
    for i in range(g.option('runs', 2)): g.run('empty', f'run{i}', seed=i)
'''


def imports_of_stage():
    "The imports of the step `stage`, as it writes them"
    nb = nbformat.read(checkout()/'nbs'/'steps'/'stage.ipynb', 4)
    return next(o.source for o in nb.cells if o.cell_type == 'code' and 'import' in o.source)


def write_paper(folder):
    "A paper of empty notebooks"
    mine = folder/'papers'/'empty'
    mine.mkdir(parents=True)
    (mine/'paper.yaml').write_text('title: Nothing')
    parameters = nbformat.v4.new_code_cell("seed: int = 0  # of nothing\nout: str = ''  # folder of the run")
    parameters.metadata['tags'] = ['parameters']
    work = ("from radinet_nb.data.runs import OpenRun, recorded\n\n"
            "OpenRun(out, 'empty/empty', recorded(globals())).finish()")
    cells = [parameters, *map(nbformat.v4.new_code_cell, (imports_of_stage(), work))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), mine/'empty.ipynb')
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(GRAPH)]), mine/'graph.ipynb')


def machine_cpu():
    "Seconds that the cores of this machine have worked since it started"
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path('/proc/stat').read_text().split('\n')[0].split()[1:])
    return (user + nice + system + irq + softirq)/os.sysconf('SC_CLK_TCK')


def measure(folder, runs, warm, jobs):
    "Wall and CPU seconds of one plan from nothing"
    profile = folder/'empty.yaml'
    profile.write_text(f'what: nothing\nthreads: 1\nseeds: [0]\ndata: {{}}\nempty: {{runs: {runs}}}\n')
    out = folder/'runs'
    shutil.rmtree(out, ignore_errors=True)
    environment = {k: v for k, v in os.environ.items() if k != 'RADINET_WARM'}
    if not warm: environment['RADINET_WARM'] = 'off'
    command = [sys.executable, '-m', 'radinet_nb.cli', 'reproduce', '--profile', str(profile), '--papers',
               str(folder/'papers'), '--runs', str(out), '--jobs', str(jobs)]
    before, began = machine_cpu(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    wall, cpu = time.perf_counter() - began, machine_cpu() - before
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    own = re.search(r'with ([\d.]+) s of CPU', done.stdout)
    return dict(wall=wall, cpu=cpu, said=float(own[1]) if own else float('nan'))


def main():
    parser = argparse.ArgumentParser()
    for name, value in (('runs', 12), ('rounds', 3), ('jobs', 2)):
        parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--result', type=Path, default=HERE/'fixed_cost.json')
    args, few = parser.parse_args(), 2
    if args.runs <= few: parser.error(f'--runs {args.runs}: more than {few}, for the difference is divided by')
    found = {(warm, runs): [] for warm in (True, False) for runs in (few, args.runs)}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as tmp:
        write_paper(Path(tmp))
        measure(Path(tmp), few, False, args.jobs) # bytecode and disk cache are there for everybody
        for _ in range(args.rounds):
            for (warm, runs), of in found.items(): of.append(measure(Path(tmp), runs, warm, args.jobs))
    res = {}
    for warm, name in ((True, 'warm workers'), (False, 'a process for each run')):
        small, large = found[warm, few], found[warm, args.runs]
        each = {k: [(b[k] - a[k])/(args.runs - few) for a, b in zip(small, large, strict=True)]
                for k in ('wall', 'cpu', 'said')}
        names = dict(wall='wall_seconds_a_run', cpu='cpu_seconds_a_run', said='cpu_seconds_a_run_as_reproduce_says')
        res[name] = {names[k]: round(statistics.median(v), 2) for k, v in each.items()} | {
            'cpu_rounds': [round(v, 2) for v in each['cpu']],
            f'cpu_seconds_of_{args.runs}_runs': round(statistics.median(o['cpu'] for o in large), 1),
            f'cpu_seconds_of_{args.runs}_runs_as_reproduce_says': statistics.median(o['said'] for o in large),
            f'wall_seconds_of_{args.runs}_runs': round(statistics.median(o['wall'] for o in large), 1)}
    warm, cold = res.values()
    ratios = [b/a for a, b in zip(warm['cpu_rounds'], cold['cpu_rounds'], strict=True)]
    about = dict(what='an empty stage: its imports, a run opened and finished', runs=args.runs, rounds=args.rounds,
                 jobs=args.jobs, load_before=round(load, 2), contestants=res,
                 cpu_ratio=round(statistics.median(ratios), 1), machine=platform.machine(), cores=os.cpu_count(),
                 versions=versions(), commit=commit())
    args.result.write_text(json.dumps(about, indent=1) + '\n')
    print(json.dumps(about, indent=1))


if __name__ == '__main__': main()
