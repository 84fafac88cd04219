"""Damaged files in folders that this library writes and others copy: shards, runs, kept results, models, journals

`RADINET_DAMAGED_TABLES=500 RADINET_SEED=7 pytest tests/test_damaged_runs.py` for many, with a seed of their own."""
import json
import os
import random
import shutil
import tempfile
import zlib
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from test_damaged_tables import damaged, lines_of, many, picture, seed, tried
from test_model_folder import FACTS

from radinet_nb.data.cache import ImageCache
from radinet_nb.data.journal import journal_line, read_journal
from radinet_nb.data.notebooks import executed_notebook, notebook_cells
from radinet_nb.data.runs import load_run, write_json
from radinet_nb.data.shards import build_shards
from radinet_nb.errors import InputError
from radinet_nb.learning.checkpoints import Checkpoint, write_checkpoint
from radinet_nb.learning.fused import FusedModel, load_fused, save_fused
from radinet_nb.learning.fusion import FusionClassifier
from radinet_nb.learning.networks import Network
from radinet_nb.learning.weights import network_from_weights, save_weights
from radinet_nb.models.folder import load_network, write_model
from radinet_nb.results.forest import forest_figure
from radinet_nb.results.kept_notebooks import keep_notebook
from radinet_nb.results.ledger import gather_evidence
from radinet_nb.results.numbers import kept_numbers, kept_verdicts, numbers_of, restore_run, trainings_kept
from radinet_nb.results.result_run import ResultRun, contents_of
from radinet_nb.workflow.crate import planned_nodes

def sharded(root):
    for i in range(3): picture(root/f'{i}.png')
    (root/'3.png').write_bytes(b'torn')
    build_shards(pd.DataFrame(dict(path=[str(root/f'{i}.png') for i in range(4)])), root/'cache', 16, 2, jobs=1)


def shards_of(root):
    cache = ImageCache(root/'cache')
    return cache.paths, cache.unreadable.path, cache.row, cache.rows_of(cache.paths)


def executed(root):
    output = nbformat.v4.new_output('stream', text='0.5')
    code = nbformat.v4.new_code_cell('n = 1', outputs=[output], metadata=dict(tags=['x']))
    nb = nbformat.v4.new_notebook(cells=[code, nbformat.v4.new_markdown_cell('# A title')])
    nbformat.write(nb, root/'notebook.ipynb')


def notebook_of(root):
    with tempfile.TemporaryDirectory() as out:
        keep_notebook(root/'notebook.ipynb', Path(out)/'a.md', root, {})
    return notebook_cells(root/'notebook.ipynb'), executed_notebook(root/'notebook.ipynb')


def results(root):
    run = ResultRun(root/'p'/'performance'/'main', 'p/performance', {}, synthetic=True)
    table = pd.DataFrame(dict(row=['A', 'B'], metric='auc', value=[.8, .7], low=[.7, .6], high=[.9, .8]))
    run.table(table, 'fig4', 'Two models and their intervals')
    run.figure(forest_figure(table), 'fig4', 'Two models and their intervals', 'Point chart of two models')
    return run.finish()


def results_of_run(root):
    run = load_run(root/'p'/'performance'/'main')
    return contents_of(run), gather_evidence([run]), numbers_of(run), repr(run)


def kept(root):
    write_json(root/'kept'/'numbers'/'performance.json', numbers_of(results(root)))
    facts = dict(profile='open', what='made up', versions=dict(python='3'), runs=['performance'],
                 claims='id,verdict,effect\nc1,undecided,0.1\n', training='run,epochs\nA.seed0,2\n')
    write_json(root/'kept'/'numbers'/'page.json', facts)


def kept_of(root):
    numbers, about = kept_numbers(root/'kept', {})
    with tempfile.TemporaryDirectory() as out:
        for name, told in numbers.items():
            restore_run(told, Path(out)/name/'main', about['versions'], {})
            results_of_run_in(Path(out)/name/'main')
    return kept_verdicts(about.get('claims') or 'id\n'), trainings_kept(about)


def results_of_run_in(folder): return contents_of(load_run(folder))


def planned(root):
    node = dict(notebook='a.ipynb', params=dict(data=dict(hospital='synthetic')), before=[])
    later = node | dict(before=['p/ingest/main'])
    write_json(root/'plan.json', dict(nodes={'p/ingest/main': node, 'p/stage/A': later}))


def model(root):
    torch.manual_seed(0)
    write_model(Network('densenet51'), root/'model', **FACTS)


def weights(root):
    torch.manual_seed(0)
    save_weights(Network('densenet51'), root/'w.safetensors', task='fracture')


def fused(root):
    rng = np.random.default_rng(0)
    classifier = FusionClassifier(widths=(4,)).fit(rng.normal(size=(40, 4)), np.arange(40) % 2, np.arange(40))
    save_fused(FusedModel([], [], classifier, {}), root/'fused')


def checkpoint(root):
    write_checkpoint(root/'c.safetensors', dict(epochs=2, resumed=[], phase=0, epoch=1, model=dict(w=torch.ones(3))))


readers = dict( # what writes it, what reads it, the files to damage
    shards=(sharded, shards_of, ['cache/cache.json', 'cache/00001/cache.json', 'cache/unreadable.csv']),
    notebook=(executed, notebook_of, ['notebook.ipynb']),
    results=(results, results_of_run, [f'p/performance/main/{o}' for o in (
        'record.json', 'contents.json', 'results.json', 'fig4.csv', 'fig4.drawing.json')]),
    kept=(kept, kept_of, ['kept/numbers/performance.json', 'kept/numbers/page.json']),
    plan=(planned, planned_nodes, ['plan.json']),
    model=(model, lambda o: load_network(o/'model'), ['model/config.json', 'model/weights.safetensors']),
    weights=(weights, lambda o: network_from_weights(o/'w.safetensors'), ['w.safetensors']),
    fused=(fused, lambda o: load_fused(o/'fused'), ['fused/classifier.safetensors']),
    checkpoint=(checkpoint, lambda o: Checkpoint(o/'c.safetensors'), ['c.safetensors']))


def harmed(name, data, rng):
    "As tables are damaged; a notebook is JSON, and a huge header says that it is"
    if name.endswith('.ipynb'): name = name.replace('.ipynb', '.json')
    return damaged(name, data, rng)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', readers)
def test_a_damaged_file_is_a_value_or_one_line(name, tmp_path):
    assert any(lines_of(name, readers[name], tmp_path, harmed))


@pytest.mark.parametrize('name', readers)
def test_what_stands_where_a_file_should_is_one_line(name, tmp_path):
    write, read, files = readers[name]
    write(tmp_path)
    for place in [tmp_path/o for o in files]:
        whole, optional = place.read_bytes(), place.name in ('contents.json', 'results.json', 'c.safetensors',
                                                             'fig4.drawing.json', 'page.json')
        for stand in (lambda o: o.mkdir(), lambda o: os.mkfifo(o), lambda o: o.symlink_to('nowhere')):
            place.unlink()
            stand(place)
            line = tried(read, tmp_path)
            assert line or optional and place.is_symlink(), place
            if place.is_dir(): place.rmdir(); place.touch()
        place.unlink()
        place.write_bytes(whole)
        place.write_bytes(b'')
        assert tried(read, tmp_path) or place.name == 'fig4.csv', place # a table without columns
        place.write_bytes(whole)


def test_a_damaged_journal_is_the_lines_that_are_whole(tmp_path):
    path = tmp_path/'journal.jsonl'
    lines = [journal_line(f'c{i}', dict(skipped='no DICOM')) for i in range(3)]
    made = lambda text: f'{zlib.crc32(text.encode()):08x} {text}\n' # a right check sum on anything
    odd = [made(o) for o in ('', 'null', '5', '[1, {}]', '["c9"]', '["c9", 5]', '{}', '['*50_000)] + ['0'*8+'\n', '\n']
    path.write_text(lines[0]+''.join(odd)+lines[1]+lines[2][:-9])
    done, whole = read_journal(path)
    assert list(done) == ['c0', 'c1'] and not whole
    rng, data = random.Random(seed), ''.join(lines).encode()
    for _ in range(many):
        path.write_bytes(damaged('', data, rng))
        done, _ = read_journal(path)
        assert all(o == dict(skipped='no DICOM') for o in done.values())
    for stand in (lambda: path.mkdir(), lambda: os.mkfifo(path), lambda: path.symlink_to('nowhere')):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        stand()
        with pytest.raises(InputError): read_journal(path)


def test_a_kept_name_leads_nowhere_else(tmp_path):
    kept(tmp_path)
    file = tmp_path/'kept'/'numbers'/'performance.json'
    whole = json.loads(file.read_text())
    for key in '../../x', '/etc/x', 'a/b', '', '.x':
        odd = dict(whole, contents=[o | dict(key=key) for o in whole['contents']], tables={key: dict(csv='a\n1\n')},
                   drawings={key: whole['drawings']['fig4']})
        file.write_text(json.dumps(odd))
        with pytest.raises(InputError, match='is no table or figure'): kept_of(tmp_path)
    file.write_text(json.dumps(whole))
    page = tmp_path/'kept'/'numbers'/'page.json'
    page.write_text(json.dumps(json.loads(page.read_text()) | dict(runs=['../../p'])))
    with pytest.raises(InputError, match='holds no facts of a page'): kept_of(tmp_path)
