"""`radinet ingest` against a plain loop of pydicom, the same transformations and Pillow, on the same files; and its
memory by number of files

    python benchmarks/ingest.py [--files 160] [--rounds 3] [--jobs 2] [--memory 200 2000]

The files are made here: 12-bit radiographs of 1,400 x 1,100 pixels, three in five uncompressed, the others RLE and
JPEG 2000; half of them with a window, half over their own range. The plain loop does what a data scientist would
write: `dcmread`, `apply_modality_lut`, `apply_voi_lut`, invert, scale to 8 bits, pad and resize to 1,324 pixels with
Pillow, save as PNG. It neither hashes ids, nor keeps a journal, nor looks for copies and burned-in text; `ours` does.
`plain, our compression` saves with the zlib settings that ours uses, so that only the rest is compared. Contestants
take turns, each in a process of its own; ratios are taken within a round, medians over rounds. Where others use the
machine, compare processor time. The pixels of the images are compared too. Results go to benchmarks/ingest.json.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

HERE = Path(__file__).parent


def film(rng, h, w):
    "A picture with structure and grain, 12 bits"
    import numpy as np
    y, x = np.mgrid[:h, :w].astype(np.float32)
    waves = sum(np.sin(x*rng.uniform(.002, .02)+y*rng.uniform(-.02, .02)+rng.uniform(0, 6)) for _ in range(5))
    return np.clip((waves+5)*350+rng.normal(0, 20, (h, w)), 0, 4095).astype(np.uint16)


def make_export(folder, files, shape=(1400, 1100)):
    "Write the files: few pictures, many names"
    import numpy as np
    import pydicom
    from radinet_nb.synthetic.dicom_files import write_dicom
    rng, kinds = np.random.default_rng(0), [{}, {}, {}, dict(compress=pydicom.uid.RLELossless),
                                            dict(compress=pydicom.uid.JPEG2000Lossless)]
    films = [film(rng, *shape) for _ in range(5)]
    for i in range(files):
        window = dict(WindowCenter='1700', WindowWidth='2600') if i % 2 else {}
        gray = 'MONOCHROME1' if i % 4 == 1 else 'MONOCHROME2'
        if i < 20:
            write_dicom(folder/f'{i:05}.dcm', films[i % 5], BitsStored=12, HighBit=11, PhotometricInterpretation=gray,
                        StudyDate='20200301',
                        StudyInstanceUID=f'1.2.1{i//2:05}', SOPInstanceUID=f'1.2.3.1{i:05}', PatientID=f'P{i//2:05}',
                        **window, **kinds[i % 5])
        else: # the same bytes under ids of the same length
            data = (folder/f'{i % 20:05}.dcm').read_bytes()
            for old,new in (f'1.2.3.1{i % 20:05}', f'1.2.3.1{i:05}'), (f'1.2.1{i % 20//2:05}',
                                                                       f'1.2.1{i//2:05}'), (f'P{i % 20//2:05}',
                                                                                            f'P{i//2:05}'):
                data = data.replace(old.encode(), new.encode())
            (folder/f'{i:05}.dcm').write_bytes(data)


def plain(export, out, pixels, **save):
    "The loop that one writes without this package"
    import numpy as np
    import pydicom
    from PIL import Image
    from pydicom.pixels import apply_modality_lut, apply_voi_lut
    Path(out).mkdir()
    for file in sorted(Path(export).glob('*.dcm')):
        ds = pydicom.dcmread(file)
        values = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
        if 'WindowCenter' in ds: gray = values/(2**ds.BitsStored-1)
        else: gray = (values-values.min())/float(values.max()-values.min())
        if ds.PhotometricInterpretation == 'MONOCHROME1': gray = 1-gray
        image = Image.fromarray((np.clip(gray, 0, 1)*255+.5).astype(np.uint8))
        scale = pixels/max(image.size)
        image = image.resize((round(image.width*scale), round(image.height*scale)), Image.Resampling.BILINEAR,
                             reducing_gap=3.0)
        square = Image.new('L', (pixels, pixels))
        square.paste(image, ((pixels-image.width)//2, (pixels-image.height)//2))
        square.save(Path(out)/f'{file.stem}.png', **save)


def watch(pid, peaks, stop):
    "Note the highest memory that a process and its children hold together, and that of the process alone"
    import psutil
    while not stop.is_set():
        try:
            me = psutil.Process(pid)
            mine, others = me.memory_info().rss, 0
            for o in me.children(recursive=True):
                try: others += o.memory_info().rss
                except psutil.Error: pass
            peaks['parent'], peaks['all'] = max(peaks['parent'], mine), max(peaks['all'], mine+others)
        except psutil.Error: pass
        stop.wait(.05)


def compete(who, export, out, args, pixels):
    "One contestant: seconds of wall and processor, memory"
    code = [sys.executable, __file__, '--run', who, '--export', str(export), '--out', str(out), '--jobs',
            str(args.jobs), '--pixels', str(pixels)]
    peaks, stop, load = dict(parent=0, all=0), threading.Event(), os.getloadavg()[0]
    before, start = os.times(), time.perf_counter()
    child = subprocess.Popen(code, stdout=subprocess.DEVNULL, env=os.environ | dict(OMP_NUM_THREADS='1'))
    watcher = threading.Thread(target=watch, args=(child.pid, peaks, stop))
    watcher.start()
    if child.wait(): raise SystemExit(f'{who} failed')
    wall, after = time.perf_counter()-start, os.times()
    stop.set(); watcher.join()
    used = after.children_user+after.children_system-before.children_user-before.children_system
    return dict(seconds=wall, processor=used, parent_mib=peaks['parent']/2**20, all_mib=peaks['all']/2**20,
                load_before=round(load, 2))


def run(who, args):
    if who == 'ours':
        from radinet_nb.data.ingest import ingest
        ingest(args.export, args.out, b'benchmark'*3, pixels=args.pixels, jobs=args.jobs)
    elif who == 'plain': plain(args.export, args.out, args.pixels)
    else: plain(args.export, args.out, args.pixels, compress_level=1, compress_type=zlib.Z_RLE)


def same_pixels(export, mine, theirs):
    "Images that differ, and the largest difference"
    import numpy as np
    from PIL import Image

    from radinet_nb.data.identity import keyed_hash
    differ, worst = 0, 0
    for file in sorted(Path(export).glob('*.dcm'))[:40]:
        name = keyed_hash(b'benchmark'*3, 'image', f'1.2.3.1{file.stem}')
        a, b = (np.asarray(Image.open(o)).astype(int) for o in (mine/'images'/f'{name}.png', theirs/f'{file.stem}.png'))
        differ, worst = differ+bool((a != b).any()), max(worst, int(np.abs(a-b).max()))
    return dict(images_compared=min(40, len(list(Path(export).glob('*.dcm')))), images_that_differ=differ,
                largest_difference=worst)


def memory(folder, args):
    "Peak memory of ingest by number of files, small ones"
    res = {}
    for n in args.memory:
        export = folder/f'small{n}'
        export.mkdir(); make_export(export, n, (96, 80))
        found = compete('ours', export, folder/f'out{n}', args, 96)
        res[n] = {k: round(found[k], 1) for k in ('parent_mib', 'all_mib', 'seconds')}
        for o in export, folder/f'out{n}': shutil.rmtree(o)
    return res


def main(args):
    import numpy as np
    import PIL
    import pydicom
    who, found = ['plain', 'ours', 'plain, our compression'], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        export = folder/'export'
        export.mkdir(); make_export(export, args.files)
        for r in range(args.rounds):
            for o in who:
                out = folder/o.replace(', ', '_').replace(' ', '_')
                if out.exists(): shutil.rmtree(out)
                found.setdefault(o, []).append(compete(o, export, out, args, args.pixels))
                print(r, o, {k: round(v, 1) for k,v in found[o][-1].items()}, flush=True)
        same = same_pixels(export, folder/'ours', folder/'plain')
        shutil.rmtree(export)
        held = memory(folder, args)
    mid = {o: {k: statistics.median(f[k] for f in v) for k in v[0]} for o,v in found.items()}
    ratio = lambda o: [a['seconds']/b['seconds'] for a,b in zip(found[o], found['ours'], strict=True)]
    rows = {o: dict(images_a_second=round(args.files/v['seconds'], 2),
                    processor_ms_an_image=round(1000*v['processor']/args.files, 1),
                    all_mib=round(v['all_mib']), load_before=v['load_before'],
                    **({} if o == 'ours' else dict(
                        processor_ratio=round(v['processor']/mid['ours']['processor'], 2),
                        ours_is_faster_by=round(statistics.median(ratio(o)), 2),
                                                   rounds=[round(x, 2) for x in ratio(o)]))) for o,v in mid.items()}
    few, many = (held[n]['all_mib'] for n in (min(held), max(held)))
    result = dict(what='DICOM files to 8-bit PNG of the training size', files=args.files, pixels=args.pixels,
                  jobs=args.jobs, contestants=rows,
                  same_pixels=same, memory_by_files=held, memory_growth=round(many/few-1, 3), machine=dict(
                  cores=os.cpu_count(), processor=platform.machine(), python=platform.python_version(),
                  pydicom=pydicom.__version__,
                  pillow=PIL.__version__, numpy=np.__version__))
    args.result.write_text(json.dumps(result, indent=1)+'\n')
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--files', type=int, default=160)
    parser.add_argument('--pixels', type=int, default=1324)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--memory', type=int, nargs=2, default=[200, 2000])
    parser.add_argument('--result', type=Path, default=HERE/'ingest.json')
    for o in 'run', 'export', 'out': parser.add_argument(f'--{o}', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run: run(args.run, args)
    else: main(args)
