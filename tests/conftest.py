"How tests are spread over two processes: a file stays in one, for its fixtures are made once; lessons go one by one"
import os
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace

# two processes of tests share two cores: threads of numpy would only wait for each other. Read when it is imported
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
from xdist.scheduler import LoadScopeScheduling

from radinet_nb.workflow.warm import WarmProcess

LESSONS = 'test_lessons.py'
# what most lessons and kernels import, once a process of tests; each is a fork and sees what no other has changed
MODULES = ['nbdev.test', 'fastcore.test', 'matplotlib.pyplot', 'pandas', 'pandera.pandas', 'scipy.ndimage',
           'nbformat', 'nbconvert', 'papermill', 'ipykernel.kernelapp', 'timm', 'statsmodels.api',
           'radinet_nb.learning.transfer', 'radinet_nb.data.hospital', 'radinet_nb.synthetic.hospital',
           'torch._inductor'] # what torch imports when it is asked for deterministic algorithms
SHARED = 'RADINET_TEST_WARM' # names the socket of the warm process of all processes of tests
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg'}


class ByFile(LoadScopeScheduling):
    "Hands out a file, or one lesson, at once; `--dist loadgroup` of pytest-xdist 3.8 groups nothing in pytest 9.2"
    def _split_scope(self, nodeid):
        path = nodeid.split('::')[0]
        return nodeid if path.endswith(LESSONS) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    "The whole walk first, for it takes longest; lessons last, for they are small and fill what is left"
    items.sort(key=lambda item: (item.path.name == LESSONS) - (item.path.name == 'test_reproduce.py'))


@contextmanager
def warm_process():
    "A process that has imported what lessons import; `RADINET_WARM` does not name it, for lessons make their own"
    with pytest.MonkeyPatch.context() as patch:
        for k, v in ONE_THREAD.items(): patch.setenv(k, v) # libraries ask when they are imported
        with WarmProcess(MODULES) as process:
            patch.undo()
            os.environ.pop('RADINET_WARM')
            yield process


def pytest_sessionstart(session):
    "Where several processes run the tests, the one that starts them has the warm process of all"
    config = session.config
    if hasattr(config, 'workerinput') or not config.getoption('numprocesses', None): return
    shared = ExitStack()
    os.environ[SHARED] = shared.enter_context(warm_process()).path # inherited by those that it starts
    config.add_cleanup(lambda: (os.environ.pop(SHARED), shared.close()))


@pytest.fixture(scope='session')
def warm():
    "The path of a warm process"
    with nullcontext(SimpleNamespace(path=os.environ[SHARED])) if SHARED in os.environ else warm_process() as process:
        yield process


def warm_steps():
    "The environment of a call of `radinet reproduce` whose one run is forked from the warm process of all tests"
    return os.environ | dict(RADINET_WARM=os.environ.get(SHARED, ''))


@pytest.fixture
def warm_kernels(warm, monkeypatch):
    "Kernels that this test asks for are forks of the warm process, as those of `radinet reproduce` are"
    from jupyter_client.provisioning import KernelProvisionerFactory

    from radinet_nb.workflow.execute import prefer_warm_kernels
    monkeypatch.setenv('RADINET_WARM', warm.path)
    monkeypatch.setenv('JUPYTER_DEFAULT_PROVISIONER_NAME', 'local-provisioner') # restored afterwards
    prefer_warm_kernels()
    KernelProvisionerFactory.clear_instance() # it remembers the name
    yield
    KernelProvisionerFactory.clear_instance()


@pytest.fixture
def forked(monkeypatch):
    "Processes that train together are forks here, and import nothing; one test starts them as they start for a user"
    import radinet_nb.learning.processes as processes
    start = processes.start_processes
    monkeypatch.setattr(processes, 'start_processes', lambda *a, **k: start(*a, **k | dict(start_method='fork')))


@pytest.fixture(scope='session')
def spotted():
    "Writes gray images of 40 x 32 pixels with a bright spot where the fracture is, and chests.csv with their boxes"
    import json

    import numpy as np
    import pandas as pd
    from PIL import Image

    from radinet_nb.data.boxed import read_chests

    def write(folder):
        rng, rows = np.random.default_rng(0), []
        for i in range(36):
            image, sick = rng.integers(60, 120, (32, 40), dtype=np.uint8), i % 2
            x, y = rng.integers(4, 26, 2)
            if sick: image[y:y + 4, x:x + 6] = 250
            Image.fromarray(image).save(folder/f'{i}.png')
            boxes = json.dumps([[int(x), int(y), int(x) + 6, int(y) + 4]]) if sick else '[]'
            rows.append(dict(path=f'{i}.png', label=sick, patient=f'p{i}', boxes=boxes))
        pd.DataFrame(rows).to_csv(folder/'chests.csv', index=False)
        return read_chests(folder).studies
    return write
