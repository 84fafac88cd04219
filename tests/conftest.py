"How tests are spread over two processes: a file stays in one, for its fixtures are made once; lessons go one by one"
import os

# two processes of tests share two cores: threads of numpy would only wait for each other. Read when it is imported
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
from xdist.scheduler import LoadScopeScheduling

LESSONS = 'test_lessons.py'


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
