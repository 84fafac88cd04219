"The whole walk: the smoke profile, from nothing to the pages; killed, resumed, repeated, touched."
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from radinet_nb.cli import main
from radinet_nb.data.runs import load_run, read_json, write_json
from radinet_nb.results.exhibits import missing_words
from radinet_nb.workflow.made_from import damage, own_reason, run_files
from radinet_nb.workflow.papers import load_paper

ROOT = Path(__file__).resolve().parents[1]


def radinet(*args, **kwargs):
    return subprocess.run([sys.executable, '-m', 'radinet_nb.cli', *map(str, args)], cwd=ROOT, capture_output=True,
                          text=True, **kwargs)


def started_by(token):
    "Processes with a token in their environment; those that have ended have none"
    def has(folder):
        try: return f'RADINET_TEST_TOKEN={token}'.encode() in (folder/'environ').read_bytes().split(b'\0')
        except OSError: return False
    return [o.name for o in Path('/proc').glob('[0-9]*') if has(o)]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "The runs of profile smoke, from a call that was killed after its first two nodes and a second one that resumed"
    folder = tmp_path_factory.mktemp('runs')
    command = [sys.executable, '-m', 'radinet_nb.cli', 'reproduce', '--profile', 'smoke', '--runs', str(folder)]
    token = f'smoke.{os.getpid()}' # of all that a call starts, as far as /proc can tell
    env = os.environ | {'RADINET_BROWSER': 'none', 'RADINET_TEST_TOKEN': token} # tests/test_page.py prints a page
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    while len(list((folder/'smoke').rglob('*.done'))) < 2 and killed.poll() is None: time.sleep(0.2)
    assert killed.poll() is None, 'it ended before it could be killed'
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    until = time.time() + 30 # two on a quiet machine
    while started_by(token) and time.time() < until: time.sleep(.1)
    assert not started_by(token), 'what it had started did not end with it'
    first = {Path(str(p)[:-5]): load_run(str(p)[:-5]).record['id'] for p in folder.rglob('*.done')}
    res = radinet('reproduce', '--profile', 'smoke', '--runs', folder, env=env)
    assert res.returncode == 0, res.stdout + res.stderr
    assert {p: load_run(p).record['id'] for p in first} == first, 'what was finished was made again'
    return folder/'smoke'


def test_it_ends_with_a_page_that_shows_the_figure_and_the_table(runs):
    page = (runs/'karam2021'/'page'/'main'/'page.html').read_text()
    assert page.count('data:image/svg+xml;base64,') >= 10 and 'Synthetic data.' in page and 'RadiNetRand_wrist' in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert re.findall(r'<img(?![^>]*alt="[^"]+")', page) == []


def test_every_table_and_figure_has_its_words(runs):
    assert [o for name in read_json(runs/'plan.json')['nodes'] for o in missing_words(load_run(runs/name))] == []


def test_every_item_of_every_paper_was_left_by_a_run(runs):
    "What `paper.yaml` promises is there, as a table or as a figure"
    for paper in sorted({o.split('/')[0] for o in read_json(runs/'plan.json')['nodes']}):
        for item in load_paper(paper).items.values():
            folder = runs/paper/item.notebook/'main'
            assert (folder/f'{item.key}.{dict(table="csv", figure="png")[item.kind]}').is_file(), f'{paper}/{item.id}'


def test_every_run_is_whole(runs):
    for name in read_json(runs/'plan.json')['nodes']:
        run = load_run(runs/name)
        assert {'params.json', 'record.json', 'notebook.ipynb'} <= {p.name for p in run.folder.iterdir()}
        assert {'commit', 'versions', 'device', 'seed', 'seconds', 'peak_memory_mib', 'parents',
                'id'} <= set(run.record)
    stage = load_run(runs/'karam2021'/'stage'/'RadiNet_wrist.seed0')
    assert set(stage.record['parents']) == {'karam2021/ingest/main', 'karam2021/annotate/main',
                                            'karam2021/stage/RadiNet.seed0'}
    assert stage.record['synthetic'] and stage.record['fingerprint']
    assert {'history.csv', 'weights.safetensors', 'predictions.parquet'} <= {p.name for p in stage.folder.iterdir()}
    assert [p for p in runs.rglob('*partial*')] == []


def test_nobody_is_tested_on_whom_the_chain_has_seen(runs):
    stage = load_run(runs/'karam2021'/'stage'/'RadiNet_wrist.seed0')
    tested = set(stage.predictions.query('split == "test"').patient)
    assert tested and not tested & set(stage.table('learned.parquet').patient)


def test_fig10_sets_published_beside_ours_with_intervals(runs):
    table = load_run(runs/'karam2021'/'performance'/'main').table('fig10.csv')
    assert len(table) == 20 and table.published.notna().sum() == 16 # the paper prints no balanced accuracy
    inside = table.dropna(subset=['low'])
    assert len(inside) and ((inside.low <= inside.value + 1e-9) & (inside.value <= inside.high + 1e-9)).all()


def test_a_synthetic_hospital_tells_the_auc_by_type_of_fracture(runs):
    run = load_run(runs/'karam2021'/'performance'/'main')
    table, types = run.table('auc_by_type.csv'), load_run(runs/'karam2021'/'ingest'/'main').table('types.csv')
    test = load_run(runs/'karam2021'/'stage'/'RadiNet_wrist.seed0').predictions.query('split == "test"')
    broken, sound = (set(test.study[test.target == o]) for o in (1, 0))
    assert broken <= set(types.study) and not sound & set(types.study)
    of = table[table.model == 'RadiNet_wrist'].set_index('type').fractured
    assert of['all'] == of.drop('all').sum() == (test.target == 1).sum()
    assert (table.sound == (test.target == 0).sum()).all()


def test_twenty_trainings_of_sood2021_share_the_workers_of_the_other_papers(runs):
    "Side by side where there are two cores; the fixture has killed and resumed them, the next test does nothing again"
    def span(folder):
        record = load_run(folder).record
        began = datetime.fromisoformat(record['started']).timestamp()
        return began, began + record['seconds']
    nodes = read_json(runs/'plan.json')['nodes']
    own = [o for o in nodes if o.startswith('sood2021/stage/')]
    assert len(own) >= 20 and any('lora_on_test_vit' in o for o in own)
    trained, others = [span(runs/o) for o in own], [span(runs/o) for o in nodes if o not in own]
    beside = sum(any(a < d and c < b for c, d in others) for a, b in trained)
    assert beside > 0 or os.cpu_count() == 1


def test_a_second_call_does_nothing_and_says_so(runs):
    started = time.time()
    res = radinet('reproduce', '--profile', 'smoke', '--runs', runs.parent)
    assert res.returncode == 0 and 'nothing to do' in res.stdout and 'page.html' in res.stdout
    assert time.time() - started < 60 # 15 s on a quiet machine


def test_after_an_edit_only_what_depends_on_it_would_run(runs):
    "Also where the edited notebook has an older time, as rsync and tar give it; a touched one is the same notebook"
    path = ROOT/'nbs'/'papers'/'karam2021'/'performance.ipynb'
    before, times = path.read_bytes(), path.stat()
    try:
        path.touch()
        touched = radinet('reproduce', '--profile', 'smoke', '--runs', runs.parent, '--why')
        cell = b'{"cell_type": "raw", "id": "0", "metadata": {}, "source": []}'
        path.write_bytes(before.replace(b'"cells": [', b'"cells": [' + cell + b',', 1))
        os.utime(path, (0, 0))
        edited = radinet('reproduce', '--profile', 'smoke', '--runs', runs.parent, '--why')
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert 'nothing to do' in touched.stdout
    lines = [o.strip() for o in edited.stdout.splitlines() if o.startswith('  ')]
    assert lines == ['karam2021/performance/main: its notebook changed',
                     'karam2021/page/main: waits for karam2021/performance/main']


@pytest.mark.parametrize('name, damage', [('record.json', b''), ('fig10.csv', b'model\n'), ('made_from.json', b'{')])
def test_a_damaged_run_is_made_again(runs, name, damage):
    "An emptied record, a cut table, a torn file; as it was, it is up to date again"
    path = runs/'karam2021'/'performance'/'main'/name
    before = path.read_bytes()
    try:
        path.write_bytes(damage)
        res = radinet('reproduce', '--profile', 'smoke', '--runs', runs.parent, '--why')
    finally: path.write_bytes(before)
    lines = [o.strip() for o in res.stdout.splitlines() if o.startswith('  ')]
    assert [o.split(':')[0] for o in lines] == ['karam2021/performance/main', 'karam2021/page/main'], res.stderr
    assert name in lines[0] or 'does not say what it was made from' in lines[0]


def test_a_new_parameter_is_noticed_without_the_memory_of_snakemake(runs):
    (runs/'.snakemake').rename(runs/'.elsewhere')
    try: res = radinet('reproduce', '--profile', 'smoke', '--runs', runs.parent, '--why', '--set',
                       'karam2021.correlation.pairings=3')
    finally: (runs/'.elsewhere').rename(runs/'.snakemake')
    assert 'karam2021/correlation/main: parameter changed: pairings' in res.stdout, res.stdout


def test_a_changed_figure_makes_no_training_stale(runs):
    "After a change in results/figures, only what draws would run again"
    path = ROOT/'radinet_nb'/'results'/'figures.py'
    before = path.read_bytes()
    try:
        path.write_bytes(before + b'# changed\n')
        res = radinet('reproduce', '--profile', 'smoke', '--runs', runs.parent, '--why')
    finally: path.write_bytes(before)
    stale = [o.strip().split(':')[0] for o in res.stdout.splitlines() if o.startswith('  ')]
    assert 'karam2021/performance/main' in stale
    assert [o for o in stale if o.split('/')[1] in ('stage', 'general', 'ingest', 'annotate')] == []


def test_the_same_seed_gives_the_same_numbers(runs, tmp_path):
    "A stage that ran under Snakemake, once more by plain papermill: weights and predictions to the last bit"
    first = load_run(runs/'karam2021'/'stage'/'WristNet.seed0')
    args = [o for k, v in first.params.items() for o in ('-y', f'{{{k}: {v!r}}}')] + ['-p', 'out',
                                                                                      str(tmp_path/'again')]
    nb = ROOT/'nbs'/'steps'/'stage.ipynb'
    command = [sys.executable, '-m', 'papermill', str(nb), str(tmp_path/'nb.ipynb'), '-k', 'python3', *args]
    res = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert res.returncode == 0, res.stderr[-2000:]
    again = load_run(tmp_path/'again')
    pd.testing.assert_frame_equal(again.predictions, first.predictions, check_exact=True)
    assert again.weights.read_bytes() == first.weights.read_bytes()


@pytest.mark.parametrize('args, message', [
    (['--set', 'karam2021.wrist.epoch=3'], 'did you mean epochs?'),
    (['--set', 'karam2021.wrist.epochs=three'], 'is not of type int'),
    (['--set', 'wrist.epochs=3'], 'PAPER.SECTION.PARAMETER'),
    (['--set', 'karam2021.wrist.epochs=-1'], '-1 is not at least 0'),
    (['--set', 'karam2021.wrist.lr=.nan'], 'nan is not finite'),
    (['--set', 'karam2021.target_parts={"x$(touch y)": {}}'], 'is no name'),
    (['--set', 'karam2021.target_parts={../../x: {}}'], 'is no name'),
    (['--set', 'karam2021.staged={Nobody: {}}'], 'no model is called'),
    (['--set', 'karam2021.ingest.shares=[.5, .5]'], 'does not hold 3 numbers'),
    (['--set', 'karam2021.ingest.shares=[.6, .5, .1]'], 'does not sum to 1'),
    (['--set', 'karam2021.ingest.shares=[]'], 'is empty'),
    (['--set', 'karam2021.ingest.knobs={foo: 3}'], "holds 'foo'"),
    (['--set', 'karam2021.ingest.knobs={unlabelled: 3}'], 'from 0 to 1'),
    (['--set', 'karam2021.ingest.knobs={seed: 3}'], "holds 'seed'"),
    (['--set', 'karam2021.ingest.knobs={severity: .nan}'], 'is not finite'),
    (['--set', 'karam2021.ingest.knobs={follow_up: .8, later: .2}'], 'hardly a first visit'),
    (['--set', 'karam2021.ingest.jobs=-1'], 'is not at least 1'),
    (['--set', 'karam2021.ingest.hospital_pixels=20'], 'is not at least 48'),
    (['--set', 'karam2021.ingest.parts=[knee]'], "holds 'knee'"),
    (['--set', 'karam2021.correlation.folds=1'], 'is not at least 2'),
    (['--set', 'karam2021.wrist.folds=1'], 'is not at least 2'),
    (['--set', 'karam2021.wrist.parts=[]'], 'names no body part'),
    (['--set', 'karam2021.wrist.parts=[wrist, wrist]'], 'holds one value twice'),
    (['--set', 'karam2021.wrist.parts=[7]'], 'not of type str'),
    (['--set', 'karam2021.wrist.input_std=[0, 1, 1]'], 'is not above 0'),
    (['--set', 'karam2021.annotation.sizes=[.5]'], 'not of type int'),
    (['--set', 'karam2021.annotation.noise=[]'], 'is empty'),
    (['--set', 'karam2021.features.channels=3'], 'is not a square number'),
    (['--set', 'seeds=[]'], 'no list of different whole numbers'),
    (['--set', 'seeds=[0, 0]'], 'no list of different whole numbers'),
    (['--set', 'data=5'], 'is not of type dict'),
    (['--profile', 'nowhere.yaml'], 'no such file'),
    (['--papers', '/nowhere'], 'no such folder'),
    (['--profile', 'dmeo'], 'did you mean demo?'),
    (['--profile', 'open'], 'needs fracatlas'),
    (['--only', 'karam2021/performnce'], 'did you mean karam2021/performance?'),
    (['--data', 'mura=/nowhere'], 'does not use a collection'),
    (['--profile', 'open', '--data', 'fracatlas=/nowhere'], 'no such folder'),
    (['--general', 'resnet.pth'], 'neither imagenet, nor fractal, nor a file'),
    (['--jobs', 'many'], 'jobs'),
    (['--jobs', '-3'], '-3 notebooks side by side'),
])
def test_wrong_use_is_one_line_and_exit_2(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('RADINET_PAPERS', '') # what --papers sets ends with the test
    code = main(['reproduce', '--runs', str(tmp_path/'runs'), *args])
    said = capsys.readouterr().err
    assert code == 2 and message in said and len(said.strip().splitlines()) == 1, said
    assert not (tmp_path/'runs').exists()


@pytest.mark.parametrize('spoil', [lambda o: o.symlink_to('/nowhere'), lambda o: os.mkfifo(o), lambda o: o.mkdir(),
                                   lambda o: o.write_bytes(b'')])
def test_what_is_no_whole_table_any_more_makes_a_run_stale(spoil, tmp_path):
    (tmp_path/'record.json').write_text('{}')
    (tmp_path/'table.csv').write_text('a\n1\n')
    made = dict(files=run_files(tmp_path))
    assert damage(tmp_path, made) == ''
    (tmp_path/'table.csv').unlink()
    spoil(tmp_path/'table.csv')
    assert damage(tmp_path, made) == 'table.csv of the run changed'


@pytest.mark.parametrize('part', ['files', 'inputs', 'code', 'params', 'paths'])
def test_a_list_of_what_made_a_run_that_is_none_makes_it_stale(part, tmp_path):
    now = dict(notebook='', code={}, params={}, parents=[], paths={})
    (tmp_path/'n').mkdir()
    (tmp_path/'n'/'record.json').write_text('{}')
    made = now | dict(inputs={}, files=run_files(tmp_path/'n'))
    write_json(tmp_path/'n'/'made_from.json', made)
    assert own_reason('n', now, tmp_path) == ''
    for odd in 5, [1], {'a': 1} if part == 'paths' else None:
        write_json(tmp_path/'n'/'made_from.json', made | {part: odd})
        assert own_reason('n', now, tmp_path) == 'made_from.json is damaged'


@pytest.mark.parametrize('where', ['file', 'file/below'])
def test_a_file_in_place_of_the_runs_is_one_line_and_exit_2(where, tmp_path, capsys):
    (tmp_path/'file').write_text('')
    assert main(['reproduce', '--profile', 'smoke', '--dry-run', '--runs', str(tmp_path/where)]) == 2
    assert 'cannot be written' in capsys.readouterr().err
