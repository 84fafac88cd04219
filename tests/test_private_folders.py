"The folder of a hospital's export is named after a patient: no plan, run, error or log holds it, whatever happens"
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import warm_steps

from radinet_nb.data.code_lists import read_codes
from radinet_nb.synthetic.dicom_files import write_dicom

ROOT = Path(__file__).resolve().parents[1]
ID = 'karam2021/ingest/main'


def write_export(export):
    "Radiographs of twelve patients that do not say that they are synthetic"
    rng = np.random.default_rng(0)
    for n in range(1, 13):
        for view in 'PA', 'LL':
            tags = dict(StudyInstanceUID=f'1.2.{n}', PatientID=f'MRNX{n}', PatientName='ROE^JANE', ViewPosition=view,
                        SOPInstanceUID=f'1.2.{n}.{view == "PA":d}', StudyDate='20200301', BodyPartExamined='WRIST')
            write_dicom(export/f'{n}{view}.dcm', rng.integers(0, 255, (40, 40)).astype(np.uint8), **tags)
    (export/'labels.csv').write_text('StudyInstanceUID,fracture\n'+''.join(f'1.2.{n},{n % 2}\n' for n in range(1, 13)))


def command(top, export, *more, key=True):
    given = ['--set', f'karam2021.ingest.key={top/"keys"/"key"}'] if key else []
    return [sys.executable, '-m', 'radinet_nb.cli', 'reproduce', '--profile', 'smoke', '--only', ID,
            '--set', 'karam2021.controls=false', '--data', f'hospital={export}', '--runs', str(top/'runs'), *given,
            *more]


def reproduce(top, export, *more, key=True):
    res = subprocess.run(command(top, export, *more, key=key), cwd=ROOT, capture_output=True, text=True,
                         env=warm_steps())
    return res.returncode, res.stdout, res.stderr.strip()


def named(top):
    "The files of the runs that hold the name of the export, or are called by it"
    content = lambda o: o.read_bytes().lower() if o.is_file() and not o.is_symlink() else b''
    return [o for o in (top/'runs').rglob('*') if 'zwanziger' in str(o).lower() or b'zwanziger' in content(o)]


@pytest.fixture(scope='module')
def top(tmp_path_factory):
    top = tmp_path_factory.mktemp('private')
    write_export(top/'Klinik Zwanziger'/'ZWANZIGER^ROSA')
    return top


def test_runs_and_reasons_hold_a_code_in_place_of_the_folder(top):
    export, moved = top/'Klinik Zwanziger'/'ZWANZIGER^ROSA', top/'Zwanziger new'
    code, out, err = reproduce(top, export, key=False) # refused before anything is written
    assert code == 2 and 'karam2021.ingest.key=FILE' in err and 'wanziger' not in err and named(top) == []
    code, out, err = reproduce(top, export, '--why')
    assert code == 0 and 'has not run yet' in out and not (top/'keys').exists() and named(top) == []

    process = subprocess.Popen(command(top, export), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((top/'runs').rglob('.run.partial-*')) and process.poll() is None: time.sleep(.05)
    assert process.poll() is None and named(top) == []
    process.kill()
    process.wait()
    code, out, err = reproduce(top, export) # goes on
    assert code == 0 and '1 of 1 runs to make' in out, out+err
    assert 'nothing to do' in reproduce(top, export)[1]

    run, listed = top/'runs'/'smoke'/ID, top/'keys'/'key.folders.csv'
    folder_code = json.loads((run/'params.json').read_text())['data']['hospital']
    assert read_codes(listed) == {folder_code: str(export)} and listed.stat().st_mode & 0o777 == 0o600
    assert len(pd.read_parquet(run/'views.parquet')) == 24 and named(top) == []

    (export/'labels.csv').write_text((export/'labels.csv').read_text().replace('1.2.3,1', '1.2.3,0'))
    code, out, err = reproduce(top, export, '--why')
    assert f'{ID}: {folder_code} changed: its files differ' in out and 'wanziger' not in out

    export.rename(moved)
    code, out, err = reproduce(top, export)
    assert code == 2 and 'no such folder' in err and len(err.splitlines()) == 1
    code, out, err = reproduce(top, moved, '--why')
    assert f'{ID}: parameter changed: data' in out and 'wanziger' not in out.lower()
    code, out, err = reproduce(top, moved)
    assert code == 0 and 'wanziger' not in out.lower() and set(read_codes(listed).values()) == {str(export), str(moved)}
    assert named(top) == []
    moved.rename(export)


def test_a_failed_run_names_no_folder(top):
    export = top/'Klinik Zwanziger'/'ZWANZIGER^ROSA'
    (export/'labels.csv').write_text((export/'labels.csv').read_text().replace('1.2.3,0', '1.2.3,7'))
    code, out, err = reproduce(top, export)
    assert code == 2 and 'labels.csv' in err and 'row 4, column fracture' in err and 'folder:' in err
    assert 'wanziger' not in out+err and len(err.splitlines()) == 1
    kept = sorted(o.suffix for o in (top/'runs'/'smoke'/'.failed').iterdir())
    assert kept == ['.ipynb', '.json'] and named(top) == []


def test_an_export_that_goes_after_the_plan_is_a_line_without_its_name(top):
    from radinet_nb.workflow.execute import execute_planned
    before = os.environ.get('RADINET_PROGRESS')
    export, plan = top/'Klinik Zwanziger'/'ZWANZIGER^ROSA', top/'runs'/'smoke'/'plan.json'
    os.rename(export, top/'elsewhere')
    assert execute_planned(plan, ID) == 2 and os.environ.get('RADINET_PROGRESS') == before
    failed = json.loads((plan.parent/'.failed'/f'{ID.replace("/", ".")}.json').read_text())['error']
    assert 'was it moved? name the folder with --data' in failed and named(top) == []
    os.rename(top/'elsewhere', export)
