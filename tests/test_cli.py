"The command line as a user meets it: help, version, completion, parameters, comparison, the key, progress, silence"
import errno
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from radinet_nb.cli import main
from radinet_nb.data.notebooks import paper_folders
from radinet_nb.data.runs import OpenRun

ROOT = Path(__file__).resolve().parents[1]


def radinet(*args, **env):
    return subprocess.run([sys.executable, '-m', 'radinet_nb.cli', *map(str, args)], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | {'PYTHONPATH': str(ROOT)} | env)


@pytest.mark.parametrize('command', ['--help', 'doctor', '--version'])
def test_it_answers_at_once(command):
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert radinet(command).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime+after.ru_stime-before.ru_utime-before.ru_stime
    assert any(seconds() < .5 for _ in range(3))


def test_wrong_words_are_refused_before_torch_is_loaded(tmp_path):
    "What a command can see is wrong costs no ten seconds"
    run, model, used, table, new = (tmp_path/o for o in ('run', 'model', 'used', 'table.parquet', 'new'))
    for folder, name, text in ((run, 'record.json', '{"task": "fracture", "classes": ["a", "b"]}'),
                               (run, 'params.json', '{}'), (model, 'config.json', '{"task": "fracture"}'),
                               (used, 'something', ''), (tmp_path, table.name, ''), (tmp_path, 'one.png', '')):
        folder.mkdir(exist_ok=True)
        (folder/name).write_text(text)
    one = tmp_path/'one.png'
    wrong = [(*o, message) for o, message in {
        ('advise', table, 'imagenet', new): 'imagenet has weights of many backbones',
        ('advise', table, new, new): 'nothing stands here', ('advise', used, run, new): 'no study table stands here',
        ('advise', new, run, new): 'no such file or folder', ('advise', table, run, new, '--epochs', 0): '0 epochs',
        ('advise', table, run, new, '--strategy', 'freeze'): "no strategy is called 'freeze'",
        ('export', new, used): 'no finished run', ('export', run, used): 'not written over',
        ('export', run, new, '--rate', .5): '--rate is for the run of a localizer',
        ('predict', new, one): 'no such folder', ('predict', run, one): 'export it first',
        ('predict', model, new): 'no such file or folder', ('predict', model, one, '--out', used): 'not written over',
        ('predict', model, used, '--out', used/'in'): 'lies inside the input',
        ('predict', model, one, '--jobs', 0): '0 processes', ('predict', model, one, '--dicom'): '--dicom',
        ('export', run, new, '--rule', 'best'): 'no rule best'}.items()] # the last one needs pandas
    code = ("import contextlib, io, json, sys; from radinet_nb.cli import main\n"
            "for *args, message in json.loads(sys.argv[1]):\n"
            "    with contextlib.redirect_stderr(io.StringIO()) as said: assert main(args) == 2, args\n"
            "    heavy = {'torch', 'fastai', 'timm', 'matplotlib'} & set(sys.modules)\n"
            "    if message != 'no rule best': heavy |= {'pandas'} & set(sys.modules)\n"
            "    assert message in said.getvalue() and not heavy, (args, said.getvalue(), heavy)")
    told = json.dumps([[str(o) for o in args] for args in wrong])
    res = subprocess.run([sys.executable, '-c', code, told], cwd=ROOT, capture_output=True, text=True,
                         env=os.environ | {'PYTHONPATH': str(ROOT)})
    assert res.returncode == 0, res.stderr[-2000:]
    assert not new.exists()


def test_version_is_that_of_the_package():
    import radinet_nb
    assert radinet('--version').stdout.strip() == f'radinet_nb {radinet_nb.__version__}'


def test_every_summary_is_whole():
    from radinet_nb.cli import app
    said = ' '.join(radinet('--help', COLUMNS='80').stdout.split())
    commands = [o for o in app.registered_commands if not o.hidden]
    assert len(commands) >= 12
    for o in commands: assert ' '.join(o.callback.__doc__.split('\n')[0].split()) in said, o.name
    assert '...' not in said.partition('Commands:')[2]


def test_a_shell_completes_commands_profiles_and_items():
    def completed(words):
        env = {'_RADINET_COMPLETE': 'complete_bash', 'COMP_WORDS': words, 'COMP_CWORD': str(len(words.split(' '))-1)}
        return radinet(**env).stdout.split()
    assert completed('radinet comp') == ['compare'] and completed('radinet reproduce --profile sm') == ['smoke']
    assert 'karam2021/table5' in completed('radinet where karam2021/tab')
    assert 'radinet' in radinet('--show-completion', 'bash', _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION='1').stdout


def test_parameters_names_every_section_of_a_profile(capsys):
    import yaml
    assert main(['parameters', '--profile', 'smoke']) == 0
    said = capsys.readouterr().out
    written = yaml.safe_load((ROOT/'workflow'/'profiles'/'smoke.yaml').read_text())
    for paper in paper_folders():
        block = said.partition(f'\n{paper}\n')[2].split('\n')
        assert set(written.get(paper) or {}) <= {line.split()[0] for line in block if line.strip()}


def test_a_parameter_that_is_listed_can_be_set(capsys):
    "and one that is not is refused: what is shown is what the graph takes"
    from radinet_nb.workflow.plan import make_plan
    from radinet_nb.workflow.profiles import load_profile
    from radinet_nb.workflow.settings import asked_graph, open_profile, section_table
    for paper, section in ('karam2021', 'wrist'), ('sood2021', 'results'), ('karam2021', 'ingest'):
        table = section_table(asked_graph(paper, open_profile('smoke')), section)
        rows = list(table[table.notebook != 'graph'].itertuples())
        settings = {f'{paper}.{section}.{row.name}': row.default if row.here is None else row.here for row in rows}
        plan = make_plan(load_profile('smoke', settings=settings), paper) # refuses a name that no notebook takes
        assert {row.name for row in rows} <= {k for node in plan.values() for k in node.params}
    assert main(['parameters', 'karam2021.wirst']) == 2
    assert 'did you mean karam2021.wrist?' in capsys.readouterr().err


def made(folder, seed=0, auc=.8, parts=('mine', 'stage', 'net')):
    run = OpenRun(folder.joinpath(*parts), 'steps/stage', dict(seed=seed, lr=.1), seed=seed)
    (run.folder/'table.csv').write_text(f'auc,seconds\n{auc},{auc}\n')
    return run.finish().folder


def test_compare_says_whether_numbers_should_differ(tmp_path, capsys):
    one, same, seed, odd = made(tmp_path/'a'), made(tmp_path/'b'), made(tmp_path/'c', 1, .9), made(tmp_path/'d', 0, .9)
    for other, code, says in ((same, 0, 'as it should be'), (seed, 0, 'may differ'), (odd, 1, 'should not differ')):
        assert main(['compare', str(one), str(other)]) == code
        assert says in capsys.readouterr().out.splitlines()[-1]
    # whole folders: runs of one name side by side
    assert main(['compare', str(tmp_path/'a'), str(tmp_path/'d')]) == 1
    assert main(['compare', str(ROOT/'figures'/'open'), str(ROOT/'figures'/'demo')]) == 0
    said = capsys.readouterr().out
    assert 'parameters were not kept' in said and 'karam2021/fig10.csv' in said
    assert main(['compare', str(one), str(tmp_path)+'/none']) == 2


def test_ingest_makes_the_users_key_once_and_says_so_in_one_line(tmp_path):
    from radinet_nb.synthetic.hospital import write_hospital
    write_hospital(tmp_path/'export', patients=2, pixels=64, parts=['wrist'])
    where = dict(XDG_DATA_HOME=str(tmp_path/'data'), HOME=str(tmp_path), LOCALAPPDATA=str(tmp_path/'data'))
    found = [radinet('ingest', tmp_path/'export', tmp_path/f'out{n}', '--pixels', 32, '--jobs', 1, **where)
             for n in (1, 2)]
    keys = [o for o in tmp_path.rglob('key') if o.is_file()]
    assert len(keys) == 1 and keys[0].stat().st_mode & 0o777 == 0o600
    for o, word in zip(found, ('made now', 'of an earlier export'), strict=True):
        lines = [line for line in o.stderr.splitlines() if not line.startswith('radinet ingest: ')]
        assert o.returncode == 0 and len(lines) == 1, o.stderr
        assert str(keys[0]) in o.stderr and word in o.stderr and keys[0].read_text().strip() not in o.stderr+o.stdout
    tables = [(tmp_path/f'out{n}'/'studies.parquet') for n in (1, 2)]
    import pandas as pd
    assert set(pd.read_parquet(tables[0]).patient) == set(pd.read_parquet(tables[1]).patient)


def test_what_takes_long_says_how_far_it_is(capsys):
    from radinet_nb.data.runs import say_progress
    from radinet_nb.terminal import progress_line
    with progress_line('radinet ingest', after=.1, every=.1):
        say_progress('1000 of 9000 files converted')
        time.sleep(1.2)
        say_progress('3000 of 9000 files converted')
        time.sleep(1.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'radinet ingest: 1000 of 9000 files converted'
    assert any('radinet ingest: 3000 of 9000 files converted, about ' in o and o.endswith('left') for o in lines)


def test_on_windows_one_line_says_what_does_not_work(monkeypatch, capsys):
    from radinet_nb import data_commands, doctor
    said = doctor.platform_facts('nt')
    assert {'reproduce', 'ingest', 'predict'} <= {o.split(' ')[0] for o in said['does not work'].split('; ')}
    import radinet_nb.data
    monkeypatch.setitem(sys.modules, 'fcntl', None)
    monkeypatch.delitem(sys.modules, 'radinet_nb.data.ingest', raising=False)
    monkeypatch.delattr(radinet_nb.data, 'ingest', raising=False)
    assert data_commands and main(['ingest', '.', 'out']) == 2
    assert 'does not work on Windows' in capsys.readouterr().err


def test_a_full_disk_is_one_line_that_says_how_to_go_on(monkeypatch, capsys):
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device', '/x/Roe_Jane.dcm')
    monkeypatch.setattr('radinet_nb.cli.app', full)
    assert main(['doctor']) == 2
    assert capsys.readouterr().err == ('radinet: No space left on device; free some disk, then call again: what was '
                                       'finished stays\n')
