"A reproduction as an RO-Crate, collections as Croissant metadata: read by their own tools, without patients and paths"
import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from radinet_nb.cli import main
from radinet_nb.data.notebooks import checkout
from radinet_nb.data.runs import OpenRun, write_json
from radinet_nb.workflow.papers import load_paper

mlc, rocrate = pytest.importorskip('mlcroissant'), pytest.importorskip('rocrate.rocrate')


@pytest.fixture
def runs(tmp_path):
    "A profile of two finished runs, the second of which reads the first; one leaves items, predictions and secrets"
    folder = tmp_path/'machine'/'runs'/'tiny'
    steps, own = checkout()/'nbs'/'steps', checkout()/'nbs'/'papers'/'karam2021'
    data = dict(data={'hospital': str(tmp_path/'export')})
    ingest = OpenRun(folder/'karam2021'/'ingest'/'main', 'steps/ingest', data)
    (ingest.folder/'studies.csv').write_text('patient,label\nDOE JANE,1\n')
    ingest.finish()
    items = load_paper('karam2021').items
    run = OpenRun(folder/'karam2021'/'performance'/'main', 'papers/karam2021/performance', dict(resamples=10),
                  [folder/'karam2021'/'ingest'/'main'], seed=0)
    for item in items.values():
        if item.notebook == 'performance': (run.folder/f'{item.key}.csv').write_text('model,auc\na,0.9\n')
    first = next(item for item in items.values() if item.notebook == 'performance')
    (run.folder/f'{first.key}.csv').write_text('patient,probability\nDOE JANE,0.9\n')
    (run.folder/'predictions.csv').write_text('patient,probability\nDOE JANE,0.9\n')
    run.finish()
    nodes = {'karam2021/ingest/main': dict(notebook=str(steps/'ingest.ipynb'), before=[], page=False,
                                           params=data),
             'karam2021/performance/main': dict(notebook=str(own/'performance.ipynb'), page=False, params={},
                                                before=['karam2021/ingest/main']),
             'karam2021/page/main': dict(notebook=str(steps/'page.ipynb'), before=[], page=True, params={})}
    write_json(folder/'plan.json', dict(nodes=nodes))
    return folder


def test_a_crate_is_read_back_and_holds_neither_patients_nor_paths(runs, tmp_path, capsys):
    out = tmp_path/'crate'
    assert main(['crate', str(runs), str(out), '--licence', 'https://spdx.org/licenses/CC-BY-4.0']) == 0
    crate = rocrate.ROCrate(out) # it refuses a file that is named and is not there
    assert crate.mainEntity.id == 'workflow/Snakefile' and len(crate.mainEntity['step']) == 2
    assert '2 of 3 planned runs' in crate.description
    action = crate.dereference('#action/karam2021/performance/main')
    assert action['instrument'].id == 'notebooks/karam2021_performance.ipynb'
    assert 'runs/karam2021/ingest/main/' in [o.id for o in action['object']]
    texts = {path: path.read_text(errors='replace') for path in out.rglob('*') if path.is_file()}
    assert [path for path, text in texts.items() if 'DOE JANE' in text or str(tmp_path) in text] == []
    assert [path for path, text in texts.items() if str(checkout()) in text] == []
    named = {o.id for o in crate.data_entities}
    assert {path.relative_to(out).as_posix() for path in texts} - named == {'ro-crate-metadata.json'}
    assert main(['crate', str(runs), str(out)]) == 2 # nothing is written over
    assert 'not written over' in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which('rocrate-validator'), reason='roc-validator wants another version of rich')
def test_a_crate_is_what_its_profile_asks_for(runs, tmp_path):
    "It asks for a network, or a cache, of the vocabularies"
    assert main(['crate', str(runs), str(tmp_path/'crate')]) == 0
    command = ['rocrate-validator', '--no-interactive', 'validate', '-p', 'provenance-run-crate-0.5', '--no-paging']
    res = subprocess.run([*command, str(tmp_path/'crate')], capture_output=True, text=True)
    if 'urlopen error' in res.stdout or 'Unable to retrieve' in res.stdout: pytest.skip('there is no network')
    assert res.returncode == 0, res.stdout


def test_a_path_in_a_notebook_of_ones_own_is_not_handed_on(runs, tmp_path, capsys):
    own = tmp_path/'mine.ipynb'
    nb = json.loads((checkout()/'nbs'/'steps'/'page.ipynb').read_text())
    nb['cells'][-1]['source'] = [f'open("{tmp_path}/export/x")']
    write_json(own, nb)
    plan = json.loads((runs/'plan.json').read_text())
    plan['nodes']['karam2021/performance/main']['notebook'] = str(own)
    write_json(runs/'plan.json', plan)
    assert main(['crate', str(runs), str(tmp_path/'crate')]) == 2
    assert 'it names a path of this machine' in capsys.readouterr().err and not (tmp_path/'crate').exists()


FRACATLAS = Path(os.environ.get('RADINET_FRACATLAS', checkout().parent/'shared'/'data'/'fracatlas'))


@pytest.mark.skipif(not FRACATLAS.is_dir(), reason='FracAtlas is not here')
def test_a_public_collection_is_described(tmp_path):
    assert main(['croissant', 'fracatlas', str(FRACATLAS), str(tmp_path/'out')]) == 0
    data = mlc.Dataset(jsonld=str(tmp_path/'out'/'croissant.json')) # raises where it is not valid
    assert not data.metadata.issues.errors and data.metadata.license == ['CC BY 4.0']
    table = pd.read_csv(tmp_path/'out'/'studies.csv')
    assert [(FRACATLAS/path).is_file() for path in table.path[:20]] == [True]*20
    row = next(iter(data.records('studies')))
    assert row['studies/label'] in (0, 1) and {f'studies/{name}' for name in table} == set(row)


def test_a_synthetic_hospital_is_described_and_a_real_one_only_when_asked(tmp_path, capsys):
    export, real = tmp_path/'export', tmp_path/'real'
    assert main(['synthesize', str(export), '--patients', '3', '--pixels', '64', '--part', 'wrist']) == 0
    assert main(['croissant', 'hospital', str(export), str(tmp_path/'out')]) == 0
    data = mlc.Dataset(jsonld=str(tmp_path/'out'/'croissant.json'))
    assert data.metadata.description.startswith('Synthetic') and list(data.records('studies'))
    import pydicom
    shutil.copytree(export, real)
    for path in real.rglob('*.dcm'): # as if patients were real
        ds = pydicom.dcmread(path)
        del ds.SyntheticData
        ds.save_as(path)
    args = ['croissant', 'hospital', str(real), str(tmp_path/'real_out'), '--key', str(tmp_path/'key')]
    capsys.readouterr()
    assert main(args) == 2 and '--not-public' in capsys.readouterr().err and not (tmp_path/'real_out').exists()
    assert main([*args, '--not-public']) == 0
    assert {'path', 'report', 'date'} & set(pd.read_csv(tmp_path/'real_out'/'studies.csv')) == set()
