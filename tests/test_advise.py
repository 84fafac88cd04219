"`radinet advise`: a small nested comparison from a study table to an answer; stopped, gone on with, misused"
import json

import numpy as np
import pytest
from PIL import Image

from radinet_nb.cli import main
from radinet_nb.data.runs import load_run
from radinet_nb.data.studies import read_studies, study_table, write_studies
from radinet_nb.learning.general import Fractals, pretrain_fractals
from radinet_nb.learning.strategies import studies_with_images

TWO = ['--strategy', 'linear probe', '--strategy', 'last block free', '--folds', '2', '--epochs', '1', '--pixels', '32',
       '--set', 'threads=1', '--set', 'augmentation=0']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A study table of 48 patients, fractured or not by a bright spot, and a start"
    folder, rng = tmp_path_factory.mktemp('advise'), np.random.default_rng(0)
    rows = []
    for i in range(48):
        x = rng.normal(90, 20, (32, 32))
        if i % 2: x[8:14, 8:14] += 120
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(folder/f'{i:03}.png')
        rows.append(dict(patient=f'p{i}', study=f's{i}', view='frontal', body_part='wrist', label=i % 2,
                         path=str(folder/f'{i:03}.png')))
    write_studies(study_table(rows, collection='toy'), folder/'studies.parquet')
    fractals = Fractals(images=32, pixels=32, classes=2, batch_size=32, threads=1)
    pretrain_fractals('densenet51', fractals, folder/'start')
    return folder


@pytest.fixture(autouse=True)
def progress(tmp_path, monkeypatch):
    "Somebody else reads how far it is, so that a slow machine writes no line of its own"
    monkeypatch.setenv('RADINET_PROGRESS', str(tmp_path/'progress'))
    return tmp_path/'progress'


def advise(folder, out, *args):
    return main(['advise', str(folder/'studies.parquet'), str(folder/'start'), str(out), *TWO, *args])


def test_stopped_it_goes_on_and_leaves_an_answer_with_its_record(folder, progress, tmp_path, monkeypatch,
                                                                     capsys):
    import radinet_nb.learning.strategies as strategies
    train, calls = strategies.train_stage, []

    def stops_at(n):
        def stage(*args):
            calls.append(progress.read_text())
            if len(calls) == n: raise KeyboardInterrupt
            return train(*args)
        return stage
    monkeypatch.setattr(strategies, 'train_stage', stops_at(3))
    out = tmp_path/'out'
    assert advise(folder, out) == 130 and 'what was finished stays' in capsys.readouterr().err
    first = {o.name: load_run(o).record['id'] for o in (out/'trainings').iterdir() if (o/'record.json').exists()}
    assert set(first) == {'linear_probe.fold0', 'last_block_free.fold0'} and not (out/'advice').exists()
    assert calls[0] == 'training 1/4 (linear probe, fold 1/2)' # nothing is known yet of how long one takes
    assert calls[2].startswith('training 3/4 (linear probe, fold 2/2), about ') and calls[2].endswith(' left')
    monkeypatch.setattr(strategies, 'train_stage', stops_at(0))
    assert advise(folder, out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(calls) == 5 and {o: load_run(out/'trainings'/o).record['id'] for o in first} == first
    kept = json.loads((out/'advice'/'advice.json').read_text())
    assert lines[-1] == str(out/'advice') and lines[-2] == kept['text'] and len(lines) == 5
    assert {o['strategy'] for o in kept['strategies']} == {'linear probe', 'last block free'} and kept['chosen']
    run = load_run(out/'advice')
    assert 'synthetic' not in run.record and not kept['synthetic'] and not kept['text'].startswith('Synthetic')
    assert len(run.record['parents']) == 4 and run.table('strategies.csv').patients.tolist() == [48, 48]
    assert run.table('strategies.csv').low.le(run.table('strategies.csv').auc).all()
    assert advise(folder, out) == 0 and len(calls) == 5 # nothing is left to do
    assert load_run(out/'advice').record['id'] == run.record['id']
    assert advise(folder, out, '--set', 'batch_size=8') == 2
    assert 'a training with another batch_size stands here' in capsys.readouterr().err


def unlabelled(folder, tmp_path):
    write_studies(read_studies(folder/'studies.parquet').assign(label=None), tmp_path/'none.parquet')
    return tmp_path/'none.parquet'


WRONG = [(['--strategy', 'LP-TF'], "no strategy is called 'LP-TF'"), (['--set', 'free=all'], 'decide free themselves'),
         (['--set', 'name=x'], 'decide name themselves'), (['--set', 'folds=3'], 'has a place of its own'),
         (['--set', 'head={}'], 'is not a text'), (['--set', 'device=gpu 7'], 'is no device'),
         (['--set', 'batchsize=3'], 'did you mean batch_size?'), (['--set', 'source=x'], 'has a place of its own'),
         (['--folds', '30'], '24 patients of the rarer class for 30 folds'), (['--epochs', '0'], '0 epochs'),
         (['--set', 'body_init=he'], 'the body is drawn by he and carried from')]


@pytest.mark.parametrize('args, message', WRONG, ids=lambda o: o[-1] if isinstance(o, list) else '')
def test_wrong_use_is_one_line_and_exit_2(args, message, folder, tmp_path, capsys):
    assert advise(folder, tmp_path/'out', *args) == 2
    said = capsys.readouterr().err
    assert message in said and said.count('\n') == 1 and not (tmp_path/'out'/'trainings').exists()


def test_what_cannot_be_read_is_one_line_and_exit_2(folder, tmp_path, capsys):
    table, start = folder/'studies.parquet', folder/'start'
    (tmp_path/'empty').mkdir()
    bare = tmp_path/'weights.pth'
    bare.write_bytes(b'')
    for args, message in (((tmp_path/'empty', start), 'no study table stands here'),
                          ((unlabelled(folder, tmp_path), start), 'no study has a label'),
                          ((table, tmp_path/'absent'), 'nothing stands here'),
                          ((table, bare), 'does not say of which backbone'),
                          ((table, 'imagenet'), 'imagenet has weights of many backbones')):
        assert main(['advise', *map(str, args), str(tmp_path/'out'), *TWO]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count('\n') == 1, said
    assert main(['advise', str(table), str(start), str(tmp_path/'one'), '--strategy', 'LP-FT']) == 2
    assert 'fewer than two strategies' in capsys.readouterr().err


def test_a_synthetic_hospital_is_called_so_from_its_files_to_the_model_folder(folder, tmp_path, capsys):
    export, out, labels, advice, model = (tmp_path/o for o in ('export', 'out', 'labels', 'advice', 'model'))
    assert main(['synthesize', str(export), '--patients', '40', '--pixels', '64', '--part', 'wrist']) == 0
    assert main(['ingest', str(export), str(out), '--key', str(tmp_path/'key'), '--pixels', '32', '--jobs', '1']) == 0
    account = json.loads((out/'account.json').read_text())
    assert account['synthetic'] and account['synthetic_files'] == account['converted']
    assert studies_with_images(out, tmp_path/'images', 32)[0].attrs['synthetic'] # what advise reads of this folder
    assert main(['annotate', str(out), str(labels), '--rules']) == 0
    assert load_run(labels).record['synthetic'] and 'synthetic' in (labels/'model_card.md').read_text()
    capsys.readouterr()
    assert main(['advise', str(labels), str(folder/'start'), str(advice), *TWO]) == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith('Synthetic data: ')
    said = json.loads((advice/'advice'/'advice.json').read_text())
    assert load_run(advice/'advice').record['synthetic'] and said['synthetic']
    assert main(['export', str(advice/'trainings'/'linear_probe.fold0'), str(model)]) == 0
    assert json.loads((model/'config.json').read_text())['synthetic'] is True
    assert 'Trained and tested on synthetic radiographs' in (model/'README.md').read_text()
