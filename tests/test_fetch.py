"Collections from their archive: a server here plays figshare's API and its files, breaks off, lies once, is gone"
import contextlib
import hashlib
import io
import json
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.cli import main
from radinet_nb.data import fetch as room
from radinet_nb.data.collections import read_collection
from radinet_nb.data.fracatlas import fracatlas_parts, fracatlas_views
from radinet_nb.data.grazpedwri import grazpedwri_columns

pytest.importorskip('pooch')


def picture(seed, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (300, 300), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in members.items(): archive.writestr(name, content)
    return buffer.getvalue()


def fracatlas():
    "Four images in the layout of the archive, below one folder"
    flags = *fracatlas_parts, 'hardware', 'fractured', *fracatlas_views
    rows = [dict.fromkeys(flags, 0) | dict(image_id=f'IMG000000{i}.jpg', hand=1, frontal=1, fractured=i % 2)
            for i in range(4)]
    folders = {0: 'Non_fractured', 1: 'Fractured'}
    members = {f'images/{folders[i % 2]}/IMG000000{i}.jpg': picture(i, 'JPEG') for i in range(4)}
    names = [dict(id=i, file_name=f'IMG000000{i}.jpg', width=300, height=300) for i in range(4)]
    boxes = [dict(id=i, image_id=i, category_id=0, bbox=[5, 5, 9, 9]) for i in (1, 3)]
    coco = dict(images=names, annotations=boxes, categories=[dict(id=0, name='fractured')])
    members |= {'dataset.csv': pd.DataFrame(rows).to_csv(index=False),
                'Annotations/COCO JSON/COCO_fracture_masks.json': json.dumps(coco)}
    return {'FracAtlas.zip': zipped({f'FracAtlas/{k}': o for k, o in members.items()})}


def grazpedwri():
    "Four images in four archives, boxes in a fifth beside copies that nobody wants"
    stems = [f'000{i}_1_01_WRI-L1_M010' for i in range(4)]
    rows = [dict(zip(grazpedwri_columns, (o, i, 1, 'M', 9.5, 1, i % 2, 'L'), strict=True)) for i, o in enumerate(stems)]
    files = {'dataset.csv': pd.DataFrame(rows).to_csv(index=False).encode()}
    files |= {f'images_part{i + 1}.zip': zipped({f'{o}.png': picture(i, 'PNG')}) for i, o in enumerate(stems)}
    notes = {f'folder_structure/{kind}/labels/{o}.txt': '3 .5 .5 .2 .2\n' for kind in ('yolov5', 'yolov4')
             for o in stems[1::2]}
    return files | {'folder_structure.zip': zipped(notes), 'readme.pdf': b'not wanted'}


class Archive:
    "What the server plays: the record and files of two articles, and how it misbehaves"
    def __init__(self):
        self.articles = {'22363012': fracatlas(), '14825193': grazpedwri()}
        self.breaks, self.lies, self.asked, self.gone = set(), set(), [], False

    def answer(self, path, begin):
        "Content, and how much of it is sent; None: 404"
        number, _, name = path.strip('/').partition('/')
        if number not in self.articles or self.gone: return None
        if not name:
            about = dict(title=f'Collection {number}', doi=f'10.6084/m9.figshare.{number}.v4',
                         license=dict(value=1, name='CC BY 4.0', url='https://creativecommons.org/licenses/by/4.0/'))
            return json.dumps(about).encode()
        if name == 'files':
            return json.dumps([dict(name=k, download_url=f'{self.home}/{number}/f/{k}', size=len(o), is_link_only=False,
                                    computed_md5=hashlib.md5(o, usedforsecurity=False).hexdigest())
                               for k, o in self.articles[number].items()]).encode()
        name = name.removeprefix('f/')
        self.asked.append((name, begin))
        content = self.articles[number][name]
        if name in self.lies:
            self.lies.discard(name)
            return content[:-1] + bytes([content[-1] ^ 1])
        return content


@pytest.fixture
def archive(monkeypatch):
    "A server on this machine; the API's address is its own"
    play = Archive()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            begin = int(self.headers.get('Range', 'bytes=0-').removeprefix('bytes=').partition('-')[0])
            content = play.answer(self.path.partition('?')[0], begin)
            if content is None: self.send_error(404); return
            self.send_response(206 if begin else 200)
            self.send_header('Content-Length', str(len(content) - begin))
            self.end_headers()
            name = self.path.rpartition('/')[2]
            self.wfile.write(content[begin:len(content)//2 if name in play.breaks else None])
            play.breaks.discard(name)

        def log_message(self, *args): pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    play.home = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setattr(room, 'FIGSHARE', play.home)
    yield play
    server.shutdown()


def radinet(*args):
    "Exit code, output, errors"
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors): code = main([str(o) for o in args])
    return code, out.getvalue(), errors.getvalue().strip()


@pytest.mark.parametrize('name, images', [('fracatlas', 4), ('grazpedwri', 4)])
def test_a_collection_comes_as_its_reader_expects(archive, tmp_path, name, images):
    code, said, _ = radinet('fetch', name, tmp_path/name, '--yes')
    assert code == 0
    lines = said.splitlines()
    assert lines[2] == 'licence: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)'
    assert lines[-1].startswith(f'{name}: {tmp_path/name};')
    studies = read_collection(name, tmp_path/name).studies
    assert len(studies) == images and studies.label.sum() == 2
    assert [len(json.loads(o)) for o in studies[studies.label == 1].boxes] == [1, 1]
    assert not (tmp_path/name/'.archives').exists() and 'readme.pdf' not in [o for o, _ in archive.asked]
    archive.asked.clear()
    assert radinet('fetch', name, tmp_path/name)[0] == 0 and archive.asked == [] # it is there


def test_nothing_is_loaded_before_the_licence_is_accepted(archive, tmp_path):
    code, said, wrong = radinet('fetch', 'fracatlas', tmp_path/'atlas')
    assert (code, archive.asked, (tmp_path/'atlas').exists()) == (2, [], False)
    assert 'CC BY 4.0' in said and wrong == 'radinet: fracatlas: its licence was not accepted; accept it with --yes'


def test_a_broken_connection_is_continued(archive, tmp_path):
    archive.breaks.add('FracAtlas.zip')
    assert radinet('fetch', 'fracatlas', tmp_path/'atlas', '--yes')[0] == 0
    size = len(archive.articles['22363012']['FracAtlas.zip'])
    assert [o[1] for o in archive.asked] == [0, size//2//2**16*2**16] and size > 2**17


def test_what_came_before_the_call_ended_is_not_loaded_again(archive, tmp_path, monkeypatch):
    archive.breaks.add('FracAtlas.zip')
    whole, once = room.load_rest, []

    def ended(file, part, **kwargs):
        "As if the process had been killed after the break: nothing is tried again"
        import requests
        if once: return whole(file, part, **kwargs)
        once.append(1)
        with contextlib.suppress(requests.RequestException), requests.get(file.url, stream=True, timeout=9) as answer, \
                open(part, 'wb') as out:
            for block in answer.iter_content(100): out.write(block)
        raise KeyboardInterrupt

    monkeypatch.setattr(room, 'load_rest', ended)
    assert radinet('fetch', 'fracatlas', tmp_path/'atlas', '--yes')[0] == 130
    have = (tmp_path/'atlas'/'.archives'/'FracAtlas.zip.part').stat().st_size
    assert have > 0 and radinet('fetch', 'fracatlas', tmp_path/'atlas', '--yes')[0] == 0
    assert archive.asked[-1] == ('FracAtlas.zip', have)


def test_a_wrong_checksum_is_one_line_and_the_next_call_loads_anew(archive, tmp_path):
    archive.lies.add('images_part2.zip')
    code, _, wrong = radinet('fetch', 'grazpedwri', tmp_path/'wrists', '--yes')
    assert code == 2 and re.fullmatch(r"radinet: images_part2.zip: its checksum is not .*; call again: .*", wrong)
    archive.asked.clear()
    assert radinet('fetch', 'grazpedwri', tmp_path/'wrists', '--yes')[0] == 0
    # what was right stays, what was wrong is asked for from its first byte on
    assert [o for o in archive.asked if o[0] in ('images_part1.zip', 'images_part2.zip')] == [('images_part2.zip', 0)]


def test_every_failure_is_one_line(archive, tmp_path, monkeypatch):
    def line(*args):
        code, _, wrong = radinet('fetch', *args)
        assert code == 2 and len(wrong.splitlines()) == 1, wrong
        return wrong
    out = tmp_path/'atlas'
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.txt').touch()
    assert 'not written over' in line('fracatlas', tmp_path/'mine', '--yes')
    assert 'no collection called fracatlass' in line('fracatlass', out, '--yes')
    assert 'not to be had without asking' in line('mura', out, '--yes')
    del archive.articles['14825193']['images_part3.zip']
    assert 'lists no images_part3.zip' in line('grazpedwri', out, '--yes')
    monkeypatch.setattr(room, 'check_disk', lambda folder, needed: (_ for _ in ()).throw(
        room.InputError(f'{needed} bytes are needed', folder)))
    assert 'are needed' in line('fracatlas', out, '--yes')
    archive.gone = True
    assert 'answers 404' in line('fracatlas', out, '--yes')
    monkeypatch.setattr(room, 'FIGSHARE', 'http://127.0.0.1:9')
    assert 'cannot be reached' in line('fracatlas', out, '--yes')
