"""`radinet reproduce` is killed at random moments, and the next call ends with the same numbers: `pytest -m alone`, for
minutes. `RADINET_KILL_SEED=7 pytest -m alone tests/test_killed.py` repeats the moments that a failure printed, and
`RADINET_KILLS=10` kills twice as often as else."""
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from radinet_nb.data.runs import load_run, read_json

ROOT = Path(__file__).resolve().parents[1]
ONLY = 'karam2021/performance' # 13 runs of the smoke profile: two ingests, a general start, eight trainings
SEED = int(os.environ.get('RADINET_KILL_SEED', time.time_ns() % 1000))
TOKEN = f'RADINET_TEST_TOKEN={os.getpid()}.{SEED}' # in the environment of all that these tests start
pytestmark = pytest.mark.alone


@pytest.fixture(scope='module', autouse=True)
def interruptible():
    "A shell that starts this in the background lets it and its children ignore SIGINT"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(runs, *args, most=resource.RLIM_INFINITY):
    "A call of reproduce, with a name of its own in the environment of all that it starts; no file of it is larger"
    command = [sys.executable, '-m', 'radinet_nb.cli', 'reproduce', '--profile', 'smoke', '--only', ONLY, '--runs',
               str(runs), *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=os.environ | dict([TOKEN.split('=')]),
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))


def ours(word=''):
    "Processes that a call started and that are still there, or those with a word in their command line"
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            command = (folder/'cmdline').read_bytes().replace(b'\0', b' ').decode(errors='replace')
            if TOKEN.encode() in (folder/'environ').read_bytes().split(b'\0') and word in command:
                found[int(folder.name)] = command[:200]
        except OSError: continue # it has ended, or is not ours
    return found


def nothing_left():
    "Whether all that a call started is gone within five seconds"
    until = time.time() + 5
    while (left := ours()) and time.time() < until: time.sleep(.2)
    assert not left, left


def marks(runs): return sorted((runs/'smoke').rglob('*.done'))


def at_work(process, runs, before):
    "Wait until a call has written its plan, later than `before`"
    plan = runs/'smoke'/'plan.json'
    while not (plan.exists() and plan.stat().st_mtime > before) and process.poll() is None: time.sleep(.05)


def at_random_moment(process, runs, rng, more):
    "Wait for some more finished runs, and a little longer; whatever the load of the machine, there is work left"
    before, wanted = len(marks(runs)), rng.randint(0, more)
    while len(marks(runs)) < before + wanted and process.poll() is None: time.sleep(.1)
    time.sleep(rng.uniform(.2, 4))
    assert process.poll() is None, process.communicate()[0]
    print(f'seed {SEED}: {len(marks(runs))} runs had finished')


def finished(runs):
    "The ids of the runs that have their mark; each is whole"
    return {path.relative_to(runs): load_run(path.with_suffix('')).record['id'] for path in marks(runs)}


def content(file):
    "What a file holds, to the last bit; but for the paths of images and caches, which lie in folders of no fixed name"
    if file.suffix != '.parquet': return file.read_bytes()
    return pd.read_parquet(file).drop(columns=['path', 'cache'], errors='ignore').to_csv(float_format='%.17g')


def numbers(runs):
    "Every number that the runs left"
    folder, kinds = runs/'smoke', ('.csv', '.parquet', '.safetensors', '.png', '.npy')
    return {str(file.relative_to(folder)): content(file) for name in read_json(folder/'plan.json')['nodes']
            for file in sorted((folder/name).rglob('*')) if file.suffix in kinds}


def differing(some, others): return [k for k in {**some, **others} if some.get(k) != others.get(k)]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The runs of a call that nobody disturbs"
    runs = tmp_path_factory.mktemp('whole')
    process = start(runs)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    nothing_left()
    return runs


@pytest.fixture(scope='module')
def expected(whole): return numbers(whole)


@pytest.fixture(scope='module')
def disturbed(expected, tmp_path_factory):
    "Runs of calls of which some were killed, one was told to end, one was interrupted, and one lost its warm process"
    rng, runs = random.Random(SEED), tmp_path_factory.mktemp('disturbed')
    how = [signal.SIGKILL]*int(os.environ.get('RADINET_KILLS', 5)) + [signal.SIGTERM, signal.SIGINT]
    rng.shuffle(how)
    for number in how:
        before, now, process = finished(runs), time.time(), start(runs)
        at_work(process, runs, now)
        at_random_moment(process, runs, rng, 1)
        process.send_signal(number)
        said = process.communicate()[0]
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), said
        nothing_left()
        after = finished(runs)
        assert before.items() <= after.items(), 'what was finished was made again'
        assert 'Traceback' not in said
    now, process = time.time(), start(runs)
    at_work(process, runs, now)
    while not ours('serve_forks(') and process.poll() is None: time.sleep(.05)
    at_random_moment(process, runs, rng, 0)
    kill_warm()
    said = process.communicate()[0]
    assert process.returncode == 0, said
    nothing_left()
    return runs


def kill_warm():
    "End the process from which runs are forked"
    warm = [pid for pid, command in ours('serve_forks(').items()
            if TOKEN.encode() in Path(f'/proc/{pid}/environ').read_bytes()]
    parents = {pid: int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1]) for pid in warm}
    first = [pid for pid in warm if parents[pid] not in warm] # its forks have its command line
    assert len(first) == 1, ours()
    os.kill(first[0], signal.SIGKILL)


def test_calls_that_were_killed_end_with_the_same_numbers(expected, disturbed):
    assert differing(numbers(disturbed), expected) == []


def test_runs_without_their_warm_process_are_made_all_the_same(expected, disturbed):
    "It is killed while it imports, or as soon as it has"
    for name in ('performance/main', 'stage/WristNet.seed0'):
        (disturbed/'smoke'/'karam2021'/f'{name}').rename(disturbed/name.replace('/', '.'))
    process = start(disturbed)
    while not ours('serve_forks(') and process.poll() is None: time.sleep(.05)
    time.sleep(random.Random(SEED).uniform(0, 6))
    kill_warm()
    said = process.communicate()[0]
    assert process.returncode == 0 and 'runs to make' in said, said
    nothing_left()
    assert differing(numbers(disturbed), expected) == []


def test_calls_on_a_full_disk_end_with_the_same_numbers(whole, expected, tmp_path):
    "No file may reach a size, that of a table, a picture or weights, which is what a full disk is to a writer"
    for kind in '.csv', '.png', '.safetensors':
        size = max(o.stat().st_size for o in (whole/'smoke').rglob(f'*{kind}'))
        process = start(tmp_path, most=size-1)
        said = process.communicate()[0]
        assert process.returncode in (1, 2) and 'Traceback' not in said, said
        nothing_left()
        print(kind, size, len(marks(tmp_path)), said[-600:])
        finished(tmp_path)
    process = start(tmp_path)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert differing(numbers(tmp_path), expected) == []


def test_of_two_calls_at_once_the_second_says_so(tmp_path):
    first = start(tmp_path)
    at_work(first, tmp_path, 0)
    second = start(tmp_path)
    said = second.communicate()[0]
    assert second.returncode == 2 and 'another radinet reproduce is at work here' in said
    assert first.poll() is None
    first.terminate()
    assert first.communicate() and first.returncode == 130
    nothing_left()


def test_a_folder_of_runs_that_was_moved_goes_on(expected, disturbed, tmp_path):
    "Up to date where it was whole; and one that was killed goes on in its new place"
    moved = tmp_path/'moved'
    disturbed.rename(moved)
    process = start(moved)
    said = process.communicate()[0]
    assert process.returncode == 0 and 'nothing to do' in said, said
    # its start says with which images it was trained
    (moved/'smoke'/'karam2021'/'stage'/'RadiNet_wrist.seed0').rename(tmp_path/'aside')
    now, process = time.time(), start(moved)
    at_work(process, moved, now)
    time.sleep(random.Random(SEED).uniform(0, 6))
    process.kill()
    process.communicate()
    nothing_left()
    moved.rename(disturbed)
    process = start(disturbed)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert differing(numbers(disturbed), expected) == []
