"The audit: it accuses nobody honest, always finds the true matrix, and says in one line what is wrong with a table"
import importlib.util
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radinet_nb.errors import InputError
from radinet_nb.evidence.audit import audit_table
from radinet_nb.evidence.confusion import COUNTS, READINGS, metric_ratio
from radinet_nb.evidence.equivalence import discordant, noninferiority, paired_interval
from radinet_nb.evidence.printed import printed_interval
from radinet_nb.evidence.solver import TooMany, contradictions, denominators, matrices
from radinet_nb.evidence.unknown_counts import region

path = Path(__file__).parents[1]/'benchmarks'/'evidence.py'
spec = importlib.util.spec_from_file_location('evidence_benchmark', path)
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
EASY = ('accuracy', 'precision', 'recall', 'specificity', 'npv', 'f1', 'kappa', 'balanced_accuracy', 'fpr', 'fnr')


def test_no_false_alarm_and_no_miss_on_random_honest_tables():
    got = benchmark.run(60, seed=7)
    assert got['false_alarms'] == 0, got['first_alarms']
    assert got['missed'] == 0, got['first_missed']
    assert got['rows_whose_matrix_was_sought'] > 10


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_brute_force_agrees(positives, negatives, data):
    tp, fp = data.draw(st.integers(0, positives)), data.draw(st.integers(0, negatives))
    reading = data.draw(st.sampled_from(READINGS))
    names = data.draw(st.lists(st.sampled_from(EASY), min_size=1, max_size=4, unique=True))
    decimals = data.draw(st.integers(0, 3))
    truth = (tp, fp, positives-tp, negatives-fp)
    printed = {o: f'{100*benchmark.metric(o, truth, reading):.{decimals}f}' for o in names}
    expected = set()
    for a in range(positives+1):
        for b in range(negatives+1):
            x = (a, b, positives-a, negatives-b)
            for o, v in printed.items():
                (over, under), (low, high) = metric_ratio(o, *x, reading=reading), printed_interval(v)
                if not (low <= Fraction(over, under) <= high if under else low <= 0 <= high or low <= 1 <= high): break
            else: expected.add(x)
    got = set(map(tuple, matrices(printed, positives, negatives, reading=reading)[COUNTS].to_numpy().tolist()))
    assert truth in got
    assert got == expected
    # with the sum alone, every split is searched, and these are among the findings
    split = set(map(tuple, matrices(printed, total=positives+negatives, reading=reading)[COUNTS].to_numpy().tolist()))
    assert {o for o in split if o[0]+o[2] == positives} == expected


@pytest.mark.parametrize(('value', 'text', 'inside'), [
    (Fraction(1, 8), '12.5', True), (Fraction(1, 8), '12', True), (Fraction(1, 8), '13', True),  # a tie goes either way
    # cut off or rounded
    (Fraction(75, 104), '72.11', True), (Fraction(75, 104), '72.12', True), (Fraction(75, 104), '72.10', False),
    (Fraction(-1, 8), '-12', True), (Fraction(-1, 8), '-13', True), (Fraction(-1, 8), '-14', False)])
def test_every_rounding_habit_is_admitted_and_nothing_else(value, text, inside):
    low, high = printed_interval(text)
    assert (low <= value <= high) == inside


def test_tables_are_audited_fast():
    start = time.process_time()
    got = benchmark.timed_tables(0, rows=30)
    # three tables, a third of the 100 rows that may take 5 s each
    assert time.process_time()-start < 4.5
    assert all(o['accused'] == 15 for o in got.values())


def test_tampered_rows_are_the_ones_accused():
    rows = pd.DataFrame(dict(model=['honest', 'tampered'], accuracy=['76.38', '79.71'], precision='79.84',
                             recall='69.78', positives='278', negatives='285'))
    got = audit_table(rows).set_index('row')
    assert got.verdict.to_dict() == {'honest': 'fits', 'tampered': 'impossible'}
    assert 'accuracy 79.71' in got.says['tampered']


def test_zeros_at_the_end_of_a_number_count(tmp_path):
    path = tmp_path/'table.csv'
    path.write_text('model,recall,positives,negatives,reading\n'
                    'short,71.2,104,195,positive\nlong,71.20,104,195,positive\n')
    # 74/104 = 71.154 prints as 71.2, and never as 71.20
    assert audit_table(path).verdict.tolist() == ['fits', 'impossible']


def test_rows_of_one_test_set_are_compared():
    rows = pd.DataFrame(dict(test_set='one', model=['a', 'b'], accuracy=['81.94', '88.96'],
                             precision=['87.88', '84.47'], recall=['55.77', '83.65'], n='299', reading='positive'))
    shared = audit_table(rows).iloc[-1]
    assert (shared.row, shared.verdict) == ('one: all rows', 'fits') and '104 positives' in shared.says
    # this row counts 126 positives among the same 299
    rows.loc[1, ['accuracy', 'precision', 'recall']] = '79.93', '81.73', '67.46'
    assert audit_table(rows).verdict.tolist() == ['fits', 'fits', 'impossible']


@pytest.mark.parametrize(('text', 'word'), [
    ('a,b\n1,2\n', 'names a metric'), ('', 'no readable CSV'), ('accuracy,n\n80,many\n', 'whole number'),
    ('accuracy,n\nhigh,20\n', 'decimal'), ('accuracy,recall,positives,negatives,total\n80,80,5,5,11\n', 'not 11'),
    ('accuracy,n,reading\n80,20,mean\n', 'reading')])
def test_bad_tables_are_refused_in_one_line(tmp_path, text, word):
    path = tmp_path/'table.csv'
    path.write_text(text)
    with pytest.raises(InputError, match=word) as e: audit_table(path)
    assert '\n' not in str(e.value)
    assert str(tmp_path) not in str(e.value)


def test_too_few_metrics_are_no_accusation():
    with pytest.raises(TooMany): matrices(dict(kappa='50'), total=2000)
    got = audit_table(pd.DataFrame(dict(kappa=['50.0'], n=['2000'])))
    assert got.verdict.item() == 'open'


def test_papers_findings():
    "What PAPERS.md lists, by the library alone"
    assert matrices(dict(accuracy='85.58', f1='82.70', kappa='70.46'), 295, 364).values.tolist() == [[227, 27, 68, 337]]
    assert matrices(dict(accuracy='87.85', f1='87.63', kappa='75.69'), 140, 148).values.tolist() == [[124, 19, 16, 129]]
    table4 = dict(accuracy='74.33', precision='79.88', recall='56.96', f1='66.50', kappa='60.36')
    elbow = contradictions(table4, 230, 235)
    assert [o['dropped'] for o in elbow] == [['accuracy', 'kappa']]
    assert elbow[0]['found'].values.tolist() == [[131, 33, 99, 202]]
    reader = matrices(dict(accuracy='88.96', precision='84.47', recall='83.65'), total=299)
    assert reader.values.tolist() == [[87, 16, 17, 179]]
    assert not len(matrices(dict(accuracy='83.61', precision='81.00', recall='71.96'), total=299))
    assert not region(dict(accuracy='75', f1='73', kappa='44'))['possible']
    wrist = [dict(precision='83.44', recall='75.98'), dict(precision='87.12', recall='79.33')]
    assert list(denominators(wrist, most=200)) == [179]


def test_similarity_needs_more_than_no_difference():
    for first, second in discordant(250, 266, 299).values():
        low, high = paired_interval(first, second, 299)
        assert low < (250-266)/299 < high
        assert noninferiority(first, second, 299, .05, grid=60) > .05
    assert np.isclose(paired_interval(5, 5, 100)[0], -paired_interval(5, 5, 100)[1])
