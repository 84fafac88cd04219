"""Time and memory by the number of files: `radinet ingest` of many small files, and the search for like images

    python benchmarks/many_images.py [--sizes 1000 10000 100000] [--parts like ingest] [--whole 10000]

`ingest`: DICOM files of 64 x 64 pixels with a study of two views each, one process; wall and processor time, the
parent's and the largest worker's memory, bytes of the journal. What is in memory by the file: the facts of the
journal's line with its thumb, and the row of the study table. `like`: `like_pairs` on as many thumbs, some of them
copies; up to `--whole` images the pairs are compared with those of the whole matrix of correlations. Thumbs are
blends of some hundred pictures, so that many are nearly alike, as hands are. Every part of a size runs in a process of
its own; with other work on the machine, compare processor time. The slope is the exponent of the number of images
between two sizes: 1 is linear, 2 is all with all. What 100,000 images would take is computed from it where they were
not measured (`--sizes` without a number computes this alone). Results go to benchmarks/many_images.json, part by part.
"""
import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def pictures(n, rng, side=33):
    "Smooth random pictures, uint8"
    noise = np.fft.rfft2(rng.normal(size=(n, side, side)))
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    smooth = np.fft.irfft2(noise/(.02+np.hypot(x, y))**1.5, s=(side, side))
    smooth -= smooth.min((1, 2), keepdims=True)
    return (smooth/smooth.max((1, 2), keepdims=True)*255).astype(np.float32)


def many_thumbs(n):
    "Thumbs of n images, n x 1 x 32 x 33 uint8: one in fifty is a copy with grain"
    rng = np.random.default_rng(0)
    common, found = pictures(200, rng), []
    for i in range(0, n, 5000):
        k = min(5000, n-i)
        share = rng.uniform(.2, .8, (k, 1, 1)).astype(np.float32)
        found.append((share*common[rng.integers(200, size=k)]+(1-share)*pictures(k, rng))[:, :32].astype(np.uint8))
    thumbs = np.concatenate(found)
    copies = rng.integers(n, size=n//50)
    thumbs[-len(copies):] = np.clip(thumbs[copies]+rng.normal(0, 2, (len(copies), 32, 33)), 0, 255)
    return thumbs[:, None]


def whole_matrix(thumbs, likeness=.98):
    "Number of pairs that all with all gives"
    from radinet_nb.data.likeness import edges
    flat = edges(thumbs[:, 0])
    return sum(int((flat[i:i+1000]@flat.T >= likeness).sum()) for i in range(0, len(flat), 1000))


def like(n, whole):
    "Time and memory of `like_pairs`"
    from radinet_nb.data.likeness import like_pairs
    thumbs = many_thumbs(n)
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = len(like_pairs(thumbs, thumbs))
    found = dict(seconds=time.perf_counter()-wall, processor_seconds=time.process_time()-cpu, pairs=pairs)
    if n <= whole:
        cpu = time.process_time()
        found |= dict(pairs_of_the_whole_matrix=whole_matrix(thumbs), whole_matrix_seconds=time.process_time()-cpu)
    return found


def make_export(folder, n):
    "Write n small files: one is written by pydicom, the others get other ids and pixels of the same length"
    from radinet_nb.synthetic.dicom_files import write_dicom
    px = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    ids = dict(StudyInstanceUID='1.2.1{:07}', SOPInstanceUID='1.2.3.1{:07}', PatientID='P{:07}', PatientName='N{:07}')
    first = write_dicom(folder/'first', px, StudyDate='20200301', ViewPosition='PA', **{
        k: v.format(0) for k,v in ids.items()}).read_bytes()
    (folder/'first').unlink()
    at, rng = first.index(px.tobytes()), np.random.default_rng(0)
    for i in range(n):
        if i % 1000 == 0: films = pictures(1000, rng, 64)
        data = first[:at]+(films[i % 1000]*16).astype('<u2').tobytes()+first[at+px.nbytes:]
        for k,v in ids.items():
            number = i if k == 'SOPInstanceUID' else i//2
            data = data.replace(v.format(0).encode(), v.format(number).encode())
        path = folder/f'{i//1000:03}'/f'{i:07}.dcm'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data.replace(b'PA', b'LL', 1) if i % 2 else data)


def ingest(n, whole):
    "Time and memory of an ingest"
    from radinet_nb.data.ingest import ingest
    with tempfile.TemporaryDirectory() as tmp:
        export, out = Path(tmp)/'export', Path(tmp)/'out'
        export.mkdir(); make_export(export, n)
        used = lambda: sum(sum(resource.getrusage(o)[:2]) for o in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        wall, cpu = time.perf_counter(), used()
        account = ingest(export, out, b'k'*32, pixels=64, jobs=1)
        return dict(seconds=time.perf_counter()-wall, processor_seconds=used()-cpu, converted=account['converted'],
                    cases=account['cases'], journal_bytes=(out/'journal.jsonl').stat().st_size,
                    worker_mib=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1024)


def measured(part, n, whole):
    "One part at one size, in a process of its own"
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    found = dict(like=like, ingest=ingest)[part](n, whole)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    return dict(images=n, load=os.getloadavg()[0], mib_before=begin, mib=peak) | found


def with_slopes(rows):
    "Exponents of the number of images, from each size to the next"
    rows = sorted(rows, key=lambda o: o['images'])
    for a,b in zip(rows, rows[1:], strict=False):
        names = [k for k in ('processor_seconds', 'mib', 'journal_bytes') if k in b]
        b['slope'] = {k: round(math.log(b[k]/a[k])/math.log(b['images']/a['images']), 2) for k in names}
    return rows


def estimate(rows, n):
    "What n images would take by the slope of the two largest sizes that were measured; nothing where n was measured"
    last = max(rows, key=lambda o: o['images'])
    if 'slope' not in last or last['images'] >= n: return {}
    return dict(images=n, measured_up_to=last['images']) | {
        k: round(last[k]*(n/last['images'])**v) for k,v in last['slope'].items()}


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument('--sizes', type=int, nargs='*', default=[1000, 10_000, 100_000])
    args.add_argument('--parts', nargs='+', default=['like', 'ingest'], choices=['like', 'ingest'])
    args.add_argument('--whole', type=int, default=10_000, help='largest size at which the whole matrix is computed')
    args.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    o = args.parse_args()
    if o.one: return print(json.dumps(measured(o.one[0], int(o.one[1]), o.whole)))
    path = HERE/'many_images.json'
    res = json.loads(path.read_text()) if path.exists() else {}
    res |= dict(python=platform.python_version(), cores=os.cpu_count())
    for n in o.sizes:
        for part in o.parts:
            command = [sys.executable, __file__, '--one', part, str(n), '--whole', str(o.whole)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = {k: round(v, 2) if isinstance(v, float) else v
                   for k,v in json.loads(done.stdout.splitlines()[-1]).items()}
            res[part] = with_slopes([*(r for r in res.get(part, []) if r['images'] != n), row])
            path.write_text(json.dumps(res, indent=1)+'\n')
            print(part, row, flush=True)
    res['by_the_slope'] = {part: found for part in o.parts if (found := estimate(res.get(part, []), 100_000))}
    path.write_text(json.dumps(res, indent=1)+'\n')


if __name__ == '__main__': main()
