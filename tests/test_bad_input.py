"Input that cannot be used: one clear line, exit 2, nothing half-written."
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import warm_steps
from PIL import Image

from radinet_nb.data.cache import build_cache
from radinet_nb.data.collections import read_collection
from radinet_nb.data.studies import study_table
from radinet_nb.errors import InputError
from radinet_nb.learning.stages import Stage
from radinet_nb.learning.transfer import train_stage
from radinet_nb.synthetic.hospital import write_hospital

ROOT = Path(__file__).resolve().parents[1]


def one_line(error): return '\n' not in str(error) and len(str(error)) < 500


@pytest.fixture(scope='module')
def hospital(tmp_path_factory):
    folder = tmp_path_factory.mktemp('h')/'export'
    write_hospital(folder, patients=4, pixels=64, seed=3)
    return folder


def radinet(tmp_path, only, *more):
    command = [sys.executable, '-m', 'radinet_nb.cli', 'reproduce', '--profile', 'smoke', '--only', only, '--runs',
               str(tmp_path/'runs')]
    return subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, env=warm_steps())


def reproduce_paper(tmp_path, data, *more):
    "The ingest node of the smoke profile on a folder of our own"
    return radinet(tmp_path, 'karam2021/ingest', '--set', 'karam2021.controls=false', '--data', data, *more)


def refused(res, message, tmp_path):
    assert res.returncode == 2 and message in res.stderr, res.stdout + res.stderr
    assert len(res.stderr.strip().splitlines()) == 1
    left = [p for pattern in ('record.json', '*.done') for p in (tmp_path/'runs').rglob(pattern)]
    assert left == []


def test_a_missing_folder(tmp_path): refused(reproduce_paper(tmp_path, 'hospital=/no/where'), 'no such folder',
                                             tmp_path)


def test_an_empty_collection(tmp_path):
    (tmp_path/'empty').mkdir()
    refused(reproduce_paper(tmp_path, f'hospital={tmp_path/"empty"}', '--set',
                            f'karam2021.ingest.key={tmp_path/"key"}'), 'the folder is empty', tmp_path)


def test_a_label_of_seven(hospital, tmp_path):
    shutil.copytree(hospital, tmp_path/'export')
    labels = pd.read_csv(tmp_path/'export'/'labels.csv')
    labels.loc[1, 'fracture'] = 7
    labels.to_csv(tmp_path/'export'/'labels.csv', index=False)
    refused(reproduce_paper(tmp_path, f'hospital={tmp_path/"export"}'), 'row 3, column fracture', tmp_path)


def test_a_mura_table_that_names_absent_files(tmp_path):
    root = tmp_path/'MURA-v1.1'
    root.mkdir()
    for part in ('train', 'valid'):
        study = f'MURA-v1.1/{part}/XR_WRIST/patient0000{len(part)}/study1_positive/'
        (root/f'{part}_image_paths.csv').write_text(f'{study}image1.png\n')
        (root/f'{part}_labeled_studies.csv').write_text(f'{study},1\n')
    with pytest.raises(InputError, match='image1.png|absent|missing|not there') as e: read_collection('mura', root)
    assert one_line(e.value)


def test_no_patient_ids():
    with pytest.raises(InputError, match='no column patient') as e: study_table(dict(path=['/a.png'], label=[1]))
    assert one_line(e.value)


def test_an_unreadable_image_is_listed_and_none_readable_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3): Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path/f'{i}.png')
    (tmp_path/'1.png').write_bytes(b'torn')
    frame = pd.DataFrame(dict(path=[str(tmp_path/f'{i}.png') for i in range(3)]))
    cache = build_cache(frame, tmp_path/'cache', 16)
    assert len(cache) == 2 and len(cache.unreadable) == 1
    with pytest.raises(InputError, match='none of'): build_cache(frame.iloc[1:2], tmp_path/'none', 16)
    assert not (tmp_path/'none').exists()


class Code:
    def __reduce__(self): return exec, ('raise SystemExit("code of a weights file ran")',)


def test_a_weights_file_that_holds_code(tmp_path):
    torch.save({'w': Code()}, tmp_path/'evil.pth')
    res = radinet(tmp_path, 'karam2021/general', '--general', str(tmp_path/'evil.pth'), '--set',
                  'karam2021.general.backbone=mobilenet_v2')
    refused(res, 'holds code, which is never run', tmp_path)


def test_no_free_disk(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path/'a.png')
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(2**40, 2**40 - 1000, 1000))
    with pytest.raises(InputError, match='free') as e: build_cache(pd.DataFrame(dict(path=[str(tmp_path/'a.png')])),
                                                                   tmp_path/'cache', 16)
    assert one_line(e.value) and not (tmp_path/'cache').exists()
    from radinet_nb.workflow.reproduce import require_disk
    with pytest.raises(InputError, match='are needed'): require_disk(tmp_path)


def test_a_stage_on_one_class(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 20), dtype=np.uint8)).save(tmp_path/f'{i}.png')
        rows.append(dict(patient=str(i), path=str(tmp_path/f'{i}.png'), label=1,
                         split=['train', 'valid', 'test'][i % 3]))
    studies = study_table(rows)
    with pytest.raises(InputError, match='one class only'): train_stage(Stage(), studies,
                                                                        build_cache(studies, tmp_path/'cache', 16),
                                                                        tmp_path/'run')
    assert not (tmp_path/'run').exists() and not list(tmp_path.glob('*partial*'))
