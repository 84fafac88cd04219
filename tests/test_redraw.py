"Results that were kept: pages and figures from numbers alone, and what cannot be drawn from them in a line each"
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_page import compared, stage

from radinet_nb.data.notebooks import find_notebook, run_papermill
from radinet_nb.results.figures import style
from radinet_nb.results.kept import keep_results
from radinet_nb.results.result_run import ResultRun
from radinet_nb.workflow.papers import load_paper

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 2**20 # bytes of a file in the tree


def sampled(root):
    "What a notebook leaves that shows radiographs, and single patients"
    import matplotlib.pyplot as plt

    from radinet_nb.results.cohort import age_figure
    run = ResultRun(root/'karam2021'/'datasets'/'main', 'karam2021/datasets', {}, synthetic=True)
    with style(): fig, ax = plt.subplots(figsize=(2, 2))
    ax.imshow(np.random.default_rng(0).integers(0, 255, (9, 9), dtype=np.uint8))
    run.figure(fig, 'fig8', 'Radiographs of two patients, one with a fracture', 'Two radiographs side by side')
    studies = pd.DataFrame(dict(collection='x', patient=[f'p{i}' for i in range(9)], study=range(9), age=range(9, 18),
                                date=None, path=[f'{i}.png' for i in range(9)]))
    run.figure(age_figure(studies), 'fig5', 'Patients by their age at the first visit', 'Histogram of ages')
    return run.finish().folder


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    "Results of runs that were made up, kept as `make figures` does, and the runs themselves"
    root = tmp_path_factory.mktemp('runs')/'open'
    runs = [stage(root, *o) for o in (('WristNet', .3), ('RadiNetRand_wrist', .6), ('ImageNet_wrist', .9),
                                      ('RadiNet_wrist', 2.))]
    shown = [str(o) for o in (compared(root, runs), sampled(root))]
    out = str(root/'karam2021'/'page'/'main')
    params = dict(paper='karam2021', profile='open', what='made up', out=out, runs=shown)
    run_papermill(find_notebook('steps/page'), root/'page.ipynb', params, str(ROOT))
    figures = tmp_path_factory.mktemp('figures')/'open'
    keep_results(root, figures, {'karam2021': load_paper('karam2021').items})
    return figures, root


def redraw(*args):
    env = os.environ | {'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg'}
    res = subprocess.run([sys.executable, '-m', 'radinet_nb.cli', 'redraw', *map(str, args)], capture_output=True,
                         text=True, env=env, cwd=ROOT)
    return res.returncode, res.stdout, res.stderr


@pytest.fixture(scope='module')
def redrawn(kept, tmp_path_factory):
    "The same results drawn again, after every run is gone"
    figures, root = kept
    hidden = root.with_name('gone')
    root.rename(hidden)
    out = tmp_path_factory.mktemp('redrawn')/'open'
    code, said, wrong = redraw(figures, '--out', out)
    hidden.rename(root)
    assert code == 0, wrong
    return out, said


def test_what_is_kept_is_small_and_names_no_patient(kept):
    numbers = kept[0]/'karam2021'/'numbers'
    assert sorted(o.name for o in numbers.iterdir()) == ['datasets.json', 'page.json', 'performance.json']
    for path in kept[0].rglob('*'):
        if path.is_file(): assert path.stat().st_size < LARGEST, path
    text = ''.join(o.read_text() for o in numbers.iterdir())
    assert '"p3"' not in text and '3.png' not in text and str(kept[1]) not in text
    assert set(json.loads((numbers/'datasets.json').read_text())['drawings']['fig5']) == {'why_not'}


def test_figures_and_tables_are_the_same_bytes(kept, redrawn):
    run, again = (o/'karam2021'/'performance'/'main' for o in (kept[1], redrawn[0]))
    for name in ('fig10.csv', 'fig10.svg', 'fig10.png', 'fig11.svg', 'differences.csv'):
        assert (again/name).read_bytes() == (run/name).read_bytes(), name


def test_the_page_has_the_verdicts_of_the_full_run(kept, redrawn):
    page = redrawn[0]/'karam2021'/'page'/'main'
    same = [pd.read_csv(o) for o in (kept[1]/'karam2021'/'page'/'main'/'claims.csv', page/'claims.csv')]
    pd.testing.assert_frame_equal(*same)
    text = (page/'page.html').read_text()
    assert 'Redrawn from kept numbers' in text and 'Its verdicts are those of the full run' in text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text) and 'RadiNet_wrist.seed0' in text


def test_what_cannot_be_redrawn_is_said_in_a_line_each(redrawn):
    lines = [o for o in redrawn[1].splitlines() if not o.startswith('page:')]
    kept = 'not redrawn, the kept picture is shown'
    assert lines == [f'karam2021/datasets, figure fig8: {kept}: it shows images',
                     f'karam2021/datasets, figure fig5: {kept}: it is drawn from single patients']


def test_the_results_in_the_tree_are_redrawn(tmp_path):
    code, said, wrong = redraw(ROOT/'figures'/'open'/'sood2021', '--out', tmp_path/'again')
    page = tmp_path/'again'/'sood2021'/'page'/'main'/'page.html'
    assert code == 0 and said.splitlines()[-1] == f'page: {page}', wrong
    assert 'Redrawn from kept numbers' in page.read_text()


def test_every_drawing_kept_in_the_tree_has_its_function():
    kept = [drawing for path in sorted(ROOT.glob('figures/*/*/numbers/*.json'))
            for drawing in json.loads(path.read_text()).get('drawings', {}).values() if 'function' in drawing]
    functions = {drawing['function'] for drawing in kept}
    assert len(functions) > 5
    for name in functions:
        module, _, function = name.partition(':')
        assert getattr(importlib.import_module(module), function).redrawable, name


def test_what_is_no_folder_of_results_is_one_line(tmp_path, kept):
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.txt').touch()
    for args, word in (((tmp_path,), 'no kept results'), ((kept[0], '--out', tmp_path/'mine'), 'not written over')):
        code, _, wrong = redraw(*args)
        assert code == 2 and word in wrong and len(wrong.strip().splitlines()) == 1
    shutil.copytree(kept[0], tmp_path/'open')
    path = tmp_path/'open'/'karam2021'/'numbers'/'performance.json'
    numbers = json.loads(path.read_text())
    numbers['drawings']['fig10']['function'] = 'os:system'
    path.write_text(json.dumps(numbers))
    code, _, wrong = redraw(tmp_path/'open', '--out', tmp_path/'evil')
    assert code == 2 and 'no drawing function' in wrong and not (tmp_path/'evil').exists()
    for name, text in dict(performance='{"record": {}}', page='{"runs": ["../x"]}').items():
        whole = path.with_name(f'{name}.json').read_text()
        path.with_name(f'{name}.json').write_text(text)
        code, _, wrong = redraw(tmp_path/'open', '--out', tmp_path/'evil')
        assert code == 2 and f'{name}.json' in wrong and len(wrong.strip().splitlines()) == 1, wrong
        assert not (tmp_path/'evil').exists()
        path.with_name(f'{name}.json').write_text(whole)
