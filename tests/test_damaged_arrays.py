"Arrays on disk that were cut, damaged or exchanged: whoever opens one says so in one line, and runs no code"
import json
import os
import re
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.analysis.detected import read_detected
from radinet_nb.data.array_files import mapped_array
from radinet_nb.data.cache import ImageCache, build_cache
from radinet_nb.data.shards import build_shards
from radinet_nb.errors import InputError
from radinet_nb.models.localizers import run_maps
from radinet_nb.results.localized import read_localized

frame = pd.DataFrame(dict(path=list('abc'), patient=list('abc'), split='test', target=[0, 1, 1], probability=.5,
                          logit=0., boxes_known=True))
boxes = pd.DataFrame(dict(row=[1], path=['b'], x0=[1], y0=[1], x1=[2], y1=[2], width=[1], height=[1]))


def pictures(root):
    "Two images, for each has room in a shard of its own"
    for o in '12': Image.new('L', (9, 9), int(o)).save(root/f'{o}.png')
    return pd.DataFrame(dict(path=[str(root/f'{o}.png') for o in '12']))


def cached(root): build_cache(pictures(root), root/'cache', 16, jobs=1)


def sharded(root): build_shards(pictures(root), root/'cache', 16, shard_rows=1, jobs=1)


def found_rows(root):
    cache = ImageCache(root/'cache')
    return cache.rows_of([str(root/'2.png')]), cache[[0, 1]], cache.thumbs[[0, 1]]


def a_run(root, task=''):
    return SimpleNamespace(folder=root, weights=root/'weights', predictions=frame, record=dict(task=task, name='x'),
                           table={'boxes.parquet': boxes}.get)


def left(root):
    for name, shape in dict(maps=(3, 4, 4), cells=(3, 4, 4), sides=(3, 4, 4, 4)).items():
        np.save(root/f'{name}.npy', np.full(shape, .5, np.float16))
    for o in 'predictions.parquet', 'weights': (root/o).touch()
    boxes.to_parquet(root/'boxes.parquet')


readers = { # what writes it, what reads it, the file to damage
    'a cache': (cached, found_rows, 'cache/images.npy'), 'thumbs of a cache': (cached, found_rows, 'cache/thumbs.npy'),
    'a shard': (sharded, found_rows, 'cache/00001/images.npy'), 'rows': (sharded, found_rows, 'cache/rows.npy'),
    'thumbs of a shard': (sharded, found_rows, 'cache/00001/thumbs.npy'),
    'hashes': (sharded, found_rows, 'cache/hashes.npy'),
    'maps': (left, lambda o: read_localized(a_run(o)), 'maps.npy'),
    'maps to share': (left, lambda o: run_maps(a_run(o, 'map'), 'test'), 'maps.npy'),
    'cells': (left, lambda o: read_detected(a_run(o, 'detection'), 'test'), 'cells.npy'),
    'sides': (left, lambda o: read_detected(a_run(o, 'detection'), 'test'), 'sides.npy')}


class Planted:
    "What a pickle would run"
    def __reduce__(self): return os.mkdir, ('planted',)


def other_shape(whole, shape):
    "The same array with another shape in its header, which keeps its length"
    head = re.sub(rb"\(.*?\)", shape, whole[10:128]).rstrip()
    return whole[:10] + head.ljust(117)[:117] + b'\n' + whole[128:]


def saved(array, **how):
    out = BytesIO()
    np.save(out, array, **how)
    return out.getvalue()


def damages(whole):
    long = whole[10:128].rstrip().ljust(2**17)
    return {'empty': b'', 'cut in its mark': whole[:4], 'cut in its header': whole[:50], 'cut': whole[:-1],
            'wrong mark': b'\x93NUMPX' + whole[6:], 'an archive': b'PK\x03\x04' + whole[4:], 'text': b'1 2 3\n',
            'objects': saved(np.array([Planted()]*3, object), allow_pickle=True), 'another array': saved(np.arange(7.)),
            'another shape': other_shape(whole, b'(7, 1)'), 'huge': other_shape(whole, b'(%d, %d)' % (9**18, 9**18)),
            'huge and empty': other_shape(whole, b'(0, %d)' % 9**18), 'below 0': other_shape(whole, b'(-1, 4, 4)'),
            'no shape': other_shape(whole, b'((((((('),
            'code': other_shape(whole, b"__import__('os').mkdir('planted')"),
            'header above 64 KiB': whole[:6] + b'\2\0' + len(long).to_bytes(4, 'little') + long + whole[128:],
            'header of gigabytes': whole[:6] + b'\3\0\xff\xff\xff\xff' + whole[10:]}


@pytest.mark.parametrize('name', readers)
def test_a_damaged_array_is_one_line(name, tmp_path, monkeypatch):
    write, read, file = readers[name]
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    read(tmp_path)
    file = tmp_path/file
    whole = file.read_bytes()
    for damage, content in damages(whole).items():
        file.write_bytes(content)
        with pytest.raises(InputError) as e: read(tmp_path)
        assert '\n' not in str(e.value) and len(str(e.value)) < 400 and str(tmp_path) in str(e.value), damage
    assert not (tmp_path/'planted').exists()
    file.unlink(); file.mkdir()
    with pytest.raises(InputError): read(tmp_path)
    file.rmdir(); os.mkfifo(file)
    with pytest.raises(InputError): read(tmp_path)
    file.unlink()
    with pytest.raises(InputError): read(tmp_path)
    file.write_bytes(whole)
    read(tmp_path)


def test_an_index_that_does_not_fit_its_shards_is_one_line(tmp_path):
    sharded(tmp_path)
    index = tmp_path/'cache'/'cache.json'
    whole = json.loads(index.read_text())
    for key, value in (('shape', [2, 16]), ('shape', [3, 16, 16]), ('starts', [0, 2]), ('starts', 'x'),
                       ('starts', [2, 1, 0]), ('shards', ['../..', 'x']), ('asked', None)):
        index.write_text(json.dumps(whole | {key: value}))
        with pytest.raises(InputError, match='is damaged'): ImageCache(tmp_path/'cache')


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('seed', range(3))
def test_no_header_is_read_as_python(seed, tmp_path):
    rng, whole = np.random.default_rng(seed), saved(np.zeros((2, 3, 4), np.float16))
    letters, opened = np.frombuffer(b"(),'{}[]0123456789-+*eEjLOVUfc<>|? \n\0\xff:TrueFals", np.uint8), 0
    for _ in range(400):
        bad = np.frombuffer(whole, np.uint8).copy()
        bad[rng.integers(0, 128, rng.integers(1, 4))] = rng.choice(letters)
        (tmp_path/'a.npy').write_bytes(bad.tobytes())
        try: opened += mapped_array(tmp_path/'a.npy', (2, 3, None), np.floating) is not None
        except InputError as e: assert 'a.npy' in str(e)
    assert opened < 100
