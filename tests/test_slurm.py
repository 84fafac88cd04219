"""Steps on a real SLURM of one node, started here: `pytest -m alone tests/test_slurm.py`, as root, with slurm-wlm and
munge of Debian, for ten minutes; and what needs none: resources of a profile, executors, steps over several GPUs."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from radinet_nb.cli import main
from radinet_nb.data.runs import load_run, read_json
from radinet_nb.workflow.cluster import jobs_at_work
from radinet_nb.workflow.resources import machine_memory

ROOT = Path(__file__).resolve().parents[1]
CONF = Path('/etc/slurm/slurm.conf') # Snakemake's plugin takes SLURM_CONF out of the environment of jobs
START = "from radinet_nb.data.runs import OpenRun, load_run, recorded\nrun = OpenRun(out, 'small', recorded(globals()))"
SEES = ("import os\nnames = ('SLURM_JOB_ID', 'CUDA_VISIBLE_DEVICES', 'RADINET_WARM')\n"
        "(run.folder/'sees.txt').write_text('|'.join(str(os.environ.get(name)) for name in names))")


def notebook(path, *cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nb.cells[0].metadata['tags'] = ['parameters']
    nbformat.write(nb, path)


@pytest.fixture
def home(tmp_path, monkeypatch):
    "A paper of its own: two runs of `count`, which may wait or take memory, and one that reads both"
    paper = tmp_path/'papers'/'mine'
    paper.mkdir(parents=True)
    (paper/'paper.yaml').write_text('title: A study')
    notebook(paper/'graph.ipynb', "#| export\ndef graph(g):\n"
             "    ids = [g.run('count', key, **g.section(key)) for key in 'ab']\n"
             "    g.run('read', reads={'counted': ids})")
    takes = "seconds: float = 0.  # to wait\nmegabytes: int = 0  # to take\nout: str = ''  # folder"
    notebook(paper/'count.ipynb', takes, START, SEES,
             "import time\ntaken = bytearray(megabytes*10**6)\ntime.sleep(seconds)", "run.finish()")
    notebook(paper/'read.ipynb', "counted: list = []  # runs\nout: str = ''  # folder", START, SEES,
             "(run.folder/'read.txt').write_text(str(len([load_run(o) for o in counted])))", "run.finish()")
    monkeypatch.setenv('RADINET_PAPERS', '') # main sets it; monkeypatch puts it back
    monkeypatch.delenv('RADINET_WARM', raising=False)
    return tmp_path


def profile(home, *lines):
    path = home/'own.yaml'
    path.write_text('\n'.join(['what: a lesson', 'threads: 1', *lines]) + '\n')
    return path


def arguments(home, *args):
    return ['reproduce', '--profile', str(home/'own.yaml'), '--papers', str(home/'papers'), '--runs', str(home/'runs'),
            *args]


def sees(home, run): return (home/'runs'/'own'/'mine'/run/'sees.txt').read_text().split('|')


# without a cluster

def test_steps_share_several_gpus(home, monkeypatch):
    "The environment of the kernels, on a machine that says it has two GPUs: side by side each has its own"
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5')
    profile(home, 'mine: {a: {seconds: 12}, b: {seconds: 12}}', 'resources: {read: {gpus: 0}}')
    assert main(arguments(home, '--jobs', '2')) == 0
    assert sorted(sees(home, f'count/{key}')[1] for key in 'ab') == ['4', '5']
    assert sees(home, 'read/main')[1] == ''


@pytest.mark.parametrize('lines, error', [
    (['resources: {count: {gpu: 1}}'], 'did you mean gpus?'),
    (['resources: {cuont: {gpus: 1}}'], 'did you mean count?'),
    (['resources: {count: {minutes: 0}}'], 'write a whole number from 1'), (['resources: [1]'], 'is not of type dict'),
    (['resource: {}'], 'did you mean resources?')])
def test_resources_are_checked_before_anything_runs(home, capsys, lines, error):
    profile(home, 'mine: {a: {}, b: {}}', *lines)
    assert main(arguments(home)) == 2
    said = capsys.readouterr().err
    assert error in said and said.count('\n') == 1
    assert not (home/'runs').exists()


def test_an_executor_that_is_not_installed_says_how_to_install_it(home, capsys):
    profile(home, 'mine: {a: {}, b: {}}')
    assert main(arguments(home, '--executor', 'no-such-cloud')) == 2
    assert 'pip install snakemake-executor-plugin-no-such-cloud' in capsys.readouterr().err


# on a cluster

def slurm_conf(at):
    name, cores = socket.gethostname().split('.')[0], os.cpu_count()
    files = dict(StateSaveLocation='state', SlurmdSpoolDir='spool', SlurmctldPidFile='slurmctld.pid',
                 SlurmdPidFile='slurmd.pid', SlurmctldLogFile='slurmctld.log', SlurmdLogFile='slurmd.log')
    words = dict(
        ClusterName='one', SlurmctldHost=f'{name}(127.0.0.1)', AuthType='auth/munge', SlurmUser='root',
        SlurmdUser='root', ProctrackType='proctrack/linuxproc', TaskPlugin='task/none', KillWait='5',
        SelectType='select/cons_tres', SelectTypeParameters='CR_Core_Memory', ReturnToService='2', MpiDefault='none',
        JobAcctGatherType='jobacct_gather/linux', JobAcctGatherFrequency='task=1', JobAcctGatherParams='OverMemoryKill')
    nodes = [f'NodeName={name} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={machine_memory()//2} State=UNKNOWN',
             f'PartitionName=all Nodes={name} Default=YES MaxTime=INFINITE State=UP']
    return '\n'.join([f'{key}={value}' for key, value in words.items()]
                     + [f'{key}={at/value}' for key, value in files.items()] + nodes) + '\n'


def wait_until(true, seconds=60):
    until = time.time() + seconds
    while not true() and time.time() < until: time.sleep(.5)
    return true()


def answers(*command): return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "A SLURM of one node, with munge; it enforces memory and time"
    missing = [name for name in ('slurmctld', 'slurmd', 'munged') if not shutil.which(name)]
    if missing: pytest.skip(f'{missing[0]} is not installed (apt-get install slurm-wlm munge)')
    if os.getuid(): pytest.skip('only root can start a SLURM')
    if CONF.exists(): pytest.skip(f'this machine has a SLURM of its own ({CONF})')
    at, started = tmp_path_factory.mktemp('slurm'), []
    for name in ('state', 'spool'): (at/name).mkdir()
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(slurm_conf(at))
    try:
        if not answers('munge', '-n'):
            Path('/run/munge').mkdir(exist_ok=True)
            shutil.chown('/run/munge', 'munge', 'munge')
            started.append(subprocess.Popen(['su', '-s', '/bin/sh', 'munge', '-c', 'exec munged --foreground']))
            if not wait_until(lambda: answers('munge', '-n'), 20): pytest.skip('munged does not answer')
        for name in ('slurmctld', 'slurmd'): subprocess.run([name], check=True)
        idle = ['sinfo', '--noheader', '--states=idle', '--format=%n']
        if not wait_until(lambda: subprocess.run(idle, capture_output=True).stdout.strip()):
            pytest.skip('the node of this SLURM does not come up')
        yield at
    finally:
        CONF.unlink()
        for file in at.glob('*.pid'): os.kill(int(file.read_text()), signal.SIGTERM)
        for process in started: process.terminate()


@pytest.fixture
def quick(home, monkeypatch):
    "Let the plugin look every two seconds, by a profile of Snakemake's own"
    (home/'snakemake').mkdir()
    (home/'snakemake'/'config.yaml').write_text('slurm-init-seconds-before-status-checks: 2\n')
    monkeypatch.setenv('SNAKEMAKE_PROFILE', str(home/'snakemake'))


def call(home, *args, **options):
    "A call of reproduce in a process of its own"
    command = [sys.executable, '-m', 'radinet_nb.cli', *arguments(home, '--executor', 'slurm', *args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def running(home):
    "Jobs of a folder of runs, once two steps have begun their work"
    folder = home/'runs'/'own'
    assert wait_until(lambda: len(list((folder/'.work').glob('*/notebook.ipynb'))) == 2, 120)
    return jobs_at_work(folder.resolve())


def finishes(home, *args):
    process = call(home, *args)
    said = process.communicate(timeout=400)[0]
    assert process.returncode == 0, said
    assert load_run(home/'runs'/'own'/'mine'/'read'/'main').folder.is_dir()
    return said


@pytest.mark.alone
def test_each_step_is_a_job_and_a_killed_call_is_continued(home, cluster, quick):
    profile(home, 'resources: {default: {memory_mb: 900, minutes: 5}}', 'mine: {a: {seconds: 40}, b: {seconds: 40}}')
    process = call(home)
    jobs = running(home)
    assert len(jobs) == 2
    process.kill()
    process.wait()
    assert jobs_at_work((home/'runs'/'own').resolve()) == jobs # SLURM knows nothing of who asked for them
    assert '2 jobs of an earlier call were still at work' in finishes(home)
    ids = [sees(home, run)[0] for run in ('count/a', 'count/b', 'read/main')]
    assert len(set(ids)) == 3 and all(map(str.isdigit, ids)) and not set(ids) & set(jobs)
    assert sees(home, 'count/a')[1:] == ['None', 'off']
    assert 'nothing to do' in finishes(home)


@pytest.mark.alone
def test_an_interrupted_call_leaves_no_job(home, cluster, quick):
    profile(home, 'resources: {default: {memory_mb: 900}}', 'mine: {a: {seconds: 300}, b: {seconds: 300}}')
    process = call(home)
    assert len(running(home)) == 2
    process.terminate()
    assert 'stopped; what was finished stays' in process.communicate(timeout=90)[0]
    assert (process.returncode, jobs_at_work((home/'runs'/'own').resolve())) == (130, [])


@pytest.mark.alone
def test_what_slurm_ends_is_named(home, cluster, quick):
    "One step takes too much memory, the other too much time; with more of both the next call finishes"
    given = 'mine: {a: {megabytes: 1500, seconds: 10}, b: {seconds: 100}}'
    profile(home, 'resources: {count: {memory_mb: 900, minutes: 1}}', given)
    process = call(home)
    said = process.communicate(timeout=400)[0].splitlines()[-1]
    assert process.returncode == 2 and said.endswith('(and 1 more)'), said
    failed = [read_json(path) for path in (home/'runs'/'own'/'.failed').glob('*.json')]
    errors = {o['node']: o['error'] for o in failed}
    assert errors == {
        'mine/count/a': 'mine/count/a: its job took more memory than 900 MB; '
                        'raise resources.count.memory_mb in the profile',
        'mine/count/b': 'mine/count/b: its job was ended after 1 minutes; '
                        'raise resources.count.minutes in the profile; a training continues from its checkpoint'}
    profile(home, 'resources: {count: {memory_mb: 3000, minutes: 4}}', given)
    finishes(home)


@pytest.mark.alone
def test_a_cancelled_job_is_named_and_made_again(home, cluster, quick):
    profile(home, 'resources: {default: {memory_mb: 900}}', 'mine: {a: {seconds: 30}, b: {seconds: 30}}')
    process = call(home)
    subprocess.run(['scancel', running(home)[0]], check=True)
    said = process.communicate(timeout=400)[0]
    assert process.returncode == 2 and 'its job was cancelled; start again' in said, said
    assert 'still at work' not in finishes(home)


@pytest.mark.alone
def test_what_slurm_refuses_is_said_in_one_line(home, cluster, quick):
    profile(home, 'resources: {default: {memory_mb: 900, partition: nowhere}}', 'mine: {a: {}, b: {}}')
    process = call(home)
    said = process.communicate(timeout=200)[0].splitlines()[-1]
    assert process.returncode == 2 and 'takes no such job: invalid partition specified: nowhere; change the' in said
