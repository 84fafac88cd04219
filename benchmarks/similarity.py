"""A grid of 16 x 16 layers by mean canonical correlation, against loops over pairs with public implementations

    python benchmarks/similarity.py [--svcca DIR] [--samples 5000] [--threads 2] [--rounds 3] [--pairs latin] [--skip
        statsmodels] [--raw FILE]

Widths are those that DenseNet-169 has at its 16 default layers. Contestants, each in a process of its own, on the
same float32 activations:

- ours: `radinet_nb.analysis.similarity_grid.similarity_grid`
- svcca: `get_cca_similarity` of github.com/google/svcca for each pair, where its checkout is named; what the field
  has used
- statsmodels: `statsmodels.multivariate.cancorr.CanCorr` for each pair, what a user would install today

They run in turn, round after round, and medians count. With `--pairs latin` the loops run over 16 pairs in which each
layer of either network appears once, and their time is multiplied by 16; ours always runs the whole grid. On a
machine that others use, compare processor seconds: wall time there measures the others. `--raw` keeps every
measurement, so that rounds may be run at different times. Ours also runs on a GPU where there is one. Results go to
benchmarks/similarity.json. scikit-learn's CCA is left out: it finds one direction at a time by iteration, and a layer
has hundreds.
"""
import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
#: features at `layers_of(densenet169)`
WIDTHS = 64, 256, 128, 288, 512, 256, 480, 736, 992, 1120, 1280, 640, 864, 1120, 1376, 1664


def networks(samples, seed=0):
    "Activations of two made-up networks: 100 shared factors, features of their own, scales as uneven as in real layers"
    import numpy as np
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(samples, 100)).astype('float32')

    def layer(width):
        scale = np.exp(rng.normal(size=width)).astype('float32')
        mixed = shared@rng.normal(size=(100, width)).astype('float32')/10
        return (mixed + rng.normal(size=(samples, width)).astype('float32'))*scale + scale
    return [{f'layer{i:02d}': layer(w) for i, w in enumerate(WIDTHS)} for _ in range(2)]


def chosen(pairs):
    "Places in the grid that the loops visit"
    n = len(WIDTHS)
    return [(i, (5*i+3)%n) for i in range(n)] if pairs == 'latin' else [(i, j) for i in range(n) for j in range(n)]


def ours(a, b, device='cpu'):
    from radinet_nb.analysis.similarity_grid import similarity_grid
    return similarity_grid(a, b, 'cca', min_ratio=3, device=device).value.to_numpy()


def with_statsmodels(pairs):
    import numpy as np
    from statsmodels.multivariate.cancorr import CanCorr
    # float32 is what it would be given; its tolerance wants float64
    return np.array([CanCorr(y.astype('float64'), x.astype('float64')).cancorr.mean() for x, y in pairs])


def with_svcca(pairs, checkout):
    sys.path.insert(0, checkout)
    import numpy as np
    from cca_core import get_cca_similarity

    def pair(x, y):
        found = get_cca_similarity(x.T.astype('float64'), y.T.astype('float64'), compute_coefs=False, verbose=False)
        return found['cca_coef1'][:min(x.shape[1], y.shape[1])].mean()
    return np.array([pair(x, y) for x, y in pairs])


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == 'darwin' else 1024)


def run(who, out, args):
    "One contestant: seconds, peak memory above what was held before it began, values"
    import numpy as np
    a, b = networks(args.samples)
    pairs = [(list(a.values())[i], list(b.values())[j]) for i, j in chosen(args.pairs)]
    if who in ('ours', 'gpu'):
        import radinet_nb.analysis.similarity_grid  # noqa: F401
    else: import statsmodels.multivariate.cancorr  # noqa: F401
    before, start, busy = peak(), time.perf_counter(), time.process_time()
    if who == 'ours': values = ours(a, b)
    elif who == 'gpu':
        ours(*(dict(list(o.items())[:2]) for o in (a, b)), 'cuda')
        start, busy = time.perf_counter(), time.process_time()
        values = ours(a, b, 'cuda')
    elif who == 'statsmodels': values = with_statsmodels(pairs)
    else: values = with_svcca(pairs, args.svcca)
    found = dict(seconds=time.perf_counter()-start, processor=time.process_time()-busy, peak=peak(),
                 above_input=peak()-before)
    Path(out).write_text(json.dumps({**found, 'values': np.asarray(values).tolist()}))


def compete(who, args):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)/'out.json'
        threads = {k: str(args.threads) for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')}
        load = os.getloadavg()[0]
        command = [sys.executable, __file__, '--run', who, '--out', str(out), '--samples', str(args.samples), '--svcca',
                   args.svcca,
                   '--pairs', args.pairs]
        subprocess.run(command, check=True, env={**os.environ, **threads})
        found = json.loads(out.read_text())
        if who in ('statsmodels', 'svcca'):
            for k in ('seconds', 'processor'): found[k] *= len(WIDTHS)**2/len(chosen(args.pairs))
        print(f"{who}: {found['seconds']:.1f} s, {found['processor']:.1f} s of processor, peak "
              f"{found['peak']/2**20:.0f} MiB", flush=True)
        return {'who': who, 'samples': args.samples, 'threads': args.threads, 'pairs': args.pairs, **found,
                'load_before': round(load, 2)}


def measure(args):
    "Rounds of all contestants, in turn; with `--raw` the earlier ones of the same kind too"
    import torch
    who = [o for o in ('ours', *(['gpu'] if torch.cuda.is_available() else []), *(['svcca'] if args.svcca else []),
                       'statsmodels')
           if o not in args.skip]
    found = [json.loads(o) for o in args.raw.read_text().splitlines()] if args.raw and args.raw.exists() else []
    for _ in range(args.rounds):
        for o in who:
            found.append(compete(o, args))
            if args.raw: args.raw.write_text(''.join(json.dumps(o)+'\n' for o in found))
    return [o for o in found if all(o[k] == getattr(args, k) for k in ('samples', 'threads', 'pairs'))]


def commit_of(checkout):
    try: return subprocess.run(['git', '-C', checkout, 'rev-parse', 'HEAD'], capture_output=True, text=True,
                               check=True).stdout.strip()
    except (subprocess.CalledProcessError, FileNotFoundError): return None


def main(args):
    import numpy as np
    import scipy
    import statsmodels
    import torch

    from radinet_nb.analysis.activations import memory_ahead
    found = measure(args)
    by = {o: [f for f in found if f['who'] == o] for o in dict.fromkeys(f['who'] for f in found)}
    def median(who, what): return float(np.median([f[what] for f in by[who]]))
    grid = np.array(by['ours'][0]['values']).reshape(len(WIDTHS), -1)
    picked = np.array([grid[o] for o in chosen(args.pairs)])

    def row(who):
        values = [f['values'] for f in by[who]]
        return dict(rounds=len(by[who]), seconds=round(median(who, 'seconds'), 1),
                    processor_seconds=round(median(who, 'processor'), 1),
                    processor_range=[round(f(o['processor'] for o in by[who]), 1) for f in (min, max)],
                    times_ours=round(median(who, 'seconds')/median('ours', 'seconds'), 1),
                    times_our_processor=round(median(who, 'processor')/median('ours', 'processor'), 1),
                    pairs_run=len(values[0]), peak_mib=round(median(who, 'peak')/2**20),
                    above_input_mib=round(median(who, 'above_input')/2**20),
                    load_before=[o['load_before'] for o in by[who]],
                    largest_difference=float(np.abs(np.array(values)-(picked if who in ('statsmodels', 'svcca')
                                                                      else grid.ravel())).max()))
    result = dict(what='16 x 16 grid of mean canonical correlations', samples=args.samples, pairs=args.pairs,
                  widths=WIDTHS, threads=args.threads,
                  memory_ahead_mib={k: round(v/2**20) for k, v in memory_ahead(WIDTHS, WIDTHS, args.samples).items()},
                  contestants={o: row(o) for o in by},
                  machine=dict(cores=os.cpu_count(), processor=platform.machine(), python=platform.python_version(),
                               torch=torch.__version__,
                               numpy=np.__version__, scipy=scipy.__version__, statsmodels=statsmodels.__version__,
                               svcca=args.svcca and commit_of(args.svcca)))
    args.result.write_text(json.dumps(result, indent=1)+'\n')
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--samples', type=int, default=5000)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--raw', type=Path, help='a file of lines to which measurements are added')
    parser.add_argument('--svcca', default='', help='a checkout of github.com/google/svcca')
    parser.add_argument('--pairs', choices=['all', 'latin'], default='all')
    parser.add_argument('--skip', nargs='*', default=[])
    parser.add_argument('--result', type=Path, default=HERE/'similarity.json')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    parser.add_argument('--out', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run: run(args.run, args.out, args)
    else: main(args)
