"How tests are spread over processes: a file stays in one, for its fixtures are made once; lessons go one by one"
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name != 'test_lessons.py': item.add_marker(pytest.mark.xdist_group(item.path.stem))
