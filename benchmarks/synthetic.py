"""The synthetic rooms, measured: the full hospital and the demo's, extrapolated from a few hundred records on one core;
fractals a second.

    OMP_NUM_THREADS=1 python benchmarks/synthetic.py [paper|demo|fractals|contrast]...

Results go to benchmarks/synthetic.json. Times are of the processor, one core; wall time on a busy machine is longer.
"""
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

here = Path(__file__).resolve().parent


def resident():
    "Memory that the process holds now, MiB, and the most it ever held"
    now = int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20
    return round(now), round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)


def hospital(scale, **knobs):
    "Write a few records with the real code, and say what `scale` of them would take"
    from radinet_nb.synthetic.hospital import write_hospital
    marks, cpu, wall = [], time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as d:
        got = write_hospital(Path(d)/'h', seed=1, progress=lambda share: marks.append((round(share, 2), resident()[0])),
                             **knobs)
        size = sum(p.stat().st_size for p in Path(d).rglob('*') if p.is_file())
    cpu, wall, n = time.process_time()-cpu, time.perf_counter()-wall, len(got)
    later = [m for s, m in marks if s>=.5]
    return dict(records=n, images=int(got.views.sum()), cpu_seconds=round(cpu, 1), wall_seconds=round(wall, 1),
                resident_mib=marks[::max(1, len(marks)//6)],
        grown_mib_in_second_half=later[-1]-later[0], peak_mib=resident()[1], mib_on_disk=round(size/2**20, 1),
        extrapolated=dict(records=scale, cpu_minutes_one_core=round(cpu/n*scale/60, 1),
                          minutes_two_cores=round(cpu/n*scale/120, 1),
                          gib_on_disk=round(size/n*scale/2**30, 2)))


def paper():
    import yaml

    from radinet_nb.data.notebooks import checkout
    paper = checkout(here)/'nbs'/'papers'/'karam2021'/'paper.yaml'
    knobs = yaml.safe_load(paper.read_text(encoding='utf-8'))['hospital']
    return hospital(knobs['records'], pixels=256, **knobs | dict(records=256))


def demo():
    return hospital(round(1200/.7), pixels=96, patients=170)


def fractals():
    import torch
    from radinet_nb.synthetic.fractals import fractal_images, systems
    torch.set_num_threads(1)
    systems(32)
    fractal_images(16, 224, classes=32)
    cpu = time.process_time()
    fractal_images(256, 224, classes=32)
    return dict(images=256, pixels=224, images_a_second_one_core=round(256/(time.process_time()-cpu), 1))


def contrast():
    "Median contrast-to-noise ratio of the change, the better of two views, by kind"
    from radinet_nb.synthetic.camera import camera_for
    from radinet_nb.synthetic.fractures import kinds
    from radinet_nb.synthetic.injuries import break_limb
    from radinet_nb.synthetic.limbs import make_limb
    from radinet_nb.synthetic.phantom import contrast_to_noise
    out = {}
    for kind in kinds:
        seen = []
        for k in range(30):
            limb = make_limb('wrist', 9 if kind in ('buckle', 'greenstick') else 45, seed=k)
            break_limb(limb, seed=k, kind=kind, site='radius')
            limb.bones = [b for b in limb.bones if b.breaks]
            seen.append(max(contrast_to_noise(limb, camera_for(limb, v, 96)) for v in ('frontal', 'lateral')))
        out[kind] = dict(zip(('low', 'median', 'high'), np.quantile(seen, (.1, .5, .9)).round(1).tolist(), strict=True))
    return out


if __name__=='__main__':
    file = here/'synthetic.json'
    told = json.loads(file.read_text()) if file.exists() else {}
    told['machine'] = dict(cores=os.cpu_count(), python=platform.python_version(), system=platform.system())
    for name in sys.argv[1:] or ('paper', 'demo', 'fractals', 'contrast'):
        told[name] = {'paper':paper, 'demo':demo, 'fractals':fractals, 'contrast':contrast}[name]()
        print(name, told[name])
        file.write_text(json.dumps(told, indent=1)+'\n')
