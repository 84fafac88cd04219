"The page on scale says what the plan of profile paper costs now, and nothing else"
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def paper_cost():
    "benchmarks/paper_cost.py"
    spec = importlib.util.spec_from_file_location('paper_cost', ROOT/'benchmarks'/'paper_cost.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['paper_cost'] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def kept(): return json.loads((ROOT/'benchmarks'/'paper_cost.json').read_text())


def test_the_table_of_the_page_is_the_one_that_was_computed(paper_cost, kept):
    text = paper_cost.PAGE.read_text()
    begin, end = paper_cost.MARKS
    assert text.partition(begin)[2].partition(end)[0].strip() == paper_cost.markdown(kept), 'benchmarks/paper_cost.py'


def test_the_plan_of_today_costs_what_was_computed(paper_cost, kept):
    _, hours, left, _ = paper_cost.costs()
    assert len(hours) == kept['trainings'] and left == kept['not_counted'], 'run benchmarks/paper_cost.py'
    assert [sum(o[k] for o in hours.values()) for k in (0, 1)] == pytest.approx(kept['gpu_hours'], abs=.06)


def test_images_are_those_that_were_published(paper_cost):
    mura, hospital = paper_cost.published_images()
    assert sum(mura.values()) == 36_804 and hospital == dict(cases=11_112, views=21_800) # the paper has 4 wrists fewer
    params = dict(unit='view', parts=['wrist'], collections=['mura'], collection_of_hospital=True)
    assert paper_cost.counted(params, [.8, .1, .1], mura, hospital) == (round(9748*8/9), round(9748/9))
    params = dict(unit='pair', parts=['wrist'], collections=['hospital'], collection_of_hospital=True)
    assert paper_cost.counted(params, [.8, .1, .1], mura, hospital) == (8890, 1111)
