"The clinical case: from an export with reader calls to Table 6, and what happens with few patients or one class"
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from radinet_nb.analysis.roc import roc_band
from radinet_nb.analysis.misclassification import difficulty_share, misclassified, regions
from radinet_nb.analysis.reader_agreement import agreement
from radinet_nb.data.notebooks import find_notebook
from radinet_nb.errors import InputError
from radinet_nb.papers.karam2021.clinical_tables import clinical_table, table6_lines
from radinet_nb.results.error_figures import confusion_figure, roc_figure, upset_figure, venn_figure
from radinet_nb.results.reader_cases import agent_calls, shared_cases
from radinet_nb.results.reader_figures import agents_figure
from radinet_nb.results.reader_tables import compare_rules, agent_confusions, non_inferiority_table, reader_points


def study(truth, readers=2, models=2, seed=0):
    "Predictions and calls on views for cases of these truths, with a validation split of both classes"
    rng, n = np.random.default_rng(seed), len(truth)
    def frame(target, split):
        names = [f'{split}{i}' for i in range(len(target))]
        return pd.DataFrame(dict(collection='x', patient=names, study=names, view='pair', body_part='wrist',
                                 target=target, probability=rng.random(len(target)).round(2), split=split))
    predictions = {f'model {i}': pd.concat([frame([0, 1]*5, 'valid'), frame(truth, 'test')]) for i in range(models)}
    calls = [dict(reader=f'R{r}', study=f'test{i}', view=v, rating=int(rng.random() < .5))
             for r in range(readers) for i in range(n) for v in ('frontal', 'lateral')]
    return predictions, pd.DataFrame(calls)


@pytest.mark.parametrize(('truth', 'readers'), [
    ([0, 1, 0, 1, 1], 2), ([0]*5, 2), ([1]*5, 2), ([1], 2), ([0, 1], 1), ([0, 1]*10, 3)])
def test_the_whole_analysis_survives_few_patients_and_one_class(truth, readers):
    predictions, calls = study(truth, readers)
    predictions, readings, counts = shared_cases(predictions, calls)
    assert counts['cases'] == len(truth)
    agents = agent_calls(predictions, readings)
    table = clinical_table(agents, resamples=50)
    one_class = len(set(truth)) == 1
    rows = table[(table.metric == ('recall' if truth[0] == 0 else 'specificity')) & (table.kind != 'average')]
    if one_class: assert rows.value.isna().all() and (rows.note != '').all()
    assert table6_lines(table).shape[0] == table.model.nunique()
    verdicts = non_inferiority_table(agents)
    undefined = verdicts[verdicts.low.isna()]
    assert (undefined.verdict == 'undefined').all() and (undefined.note != '').all()
    rules = compare_rules(readings)
    assert (rules.note[rules.low.isna()] != '').all()
    curves = {k: roc_band(d[d.split == 'test'], resamples=20) for k, d in predictions.items()}
    wrong = misclassified(agents[(agents.kind == 'model') | (agents.rule == 'disjunction')])
    assert len(agreement(agents[agents.rule == 'disjunction'], 20))
    for fig in (agents_figure(table), roc_figure(curves, reader_points(table)),
                upset_figure(regions(wrong), difficulty_share(wrong)),
                confusion_figure(agent_confusions(agents), ['none', 'fracture'], across=3)):
        fig.savefig('/dev/null', format='png')
        plt.close(fig)


def test_a_venn_diagram_without_errors_is_drawn():
    predictions, calls = study([0, 1]*4, models=1)
    truth = pd.Series([0, 1]*4, index=[f'test{i}' for i in range(8)])
    calls = calls.assign(rating=calls.study.map(truth))
    predictions = {k: d.assign(probability=d.target*.8 + .1) for k, d in predictions.items()}
    predictions, readings, _ = shared_cases(predictions, calls)
    agents = agent_calls(predictions, readings)
    wrong = misclassified(agents[(agents.kind == 'model') | (agents.rule == 'disjunction')])
    shares = difficulty_share(wrong)
    assert len(wrong) == 0 and shares.R.isna().all()
    venn_figure(regions(wrong), shares)


def test_cases_that_somebody_did_not_judge_are_counted_and_left_out():
    predictions, calls = study([0, 1]*5)
    more = pd.concat([calls[calls.index != 3], calls[calls.study == 'test0'].assign(study='elsewhere')])
    predictions, readings, counts = shared_cases(predictions, more)
    assert (counts['cases'], counts['not_read_by_all'], counts['without_image_or_label']) == (9, 1, 1)
    assert set(readings['case']) == set(predictions['model 0'].query('split == "test"').study)
    fewer = readings[readings['case'] != readings['case'].iloc[0]]
    with pytest.raises(InputError, match='same cases'): agent_calls(predictions, fewer)


@pytest.mark.slow
def test_an_export_with_reader_calls_becomes_a_clinical_set_under_pseudonyms(tmp_path, warm_kernels):
    "Five patients through ingest.ipynb as papermill runs it: no original id is left in what it writes"
    import papermill

    from radinet_nb.synthetic.clinical import write_clinical
    write_clinical(tmp_path/'export', patients=5, pixels=48)
    original = set(pd.read_csv(tmp_path/'export'/'readings.csv').StudyInstanceUID)
    params = dict(data={'hospital': str(tmp_path/'export')}, clinical=True, pixels=16, out=str(tmp_path/'run'))
    papermill.execute_notebook(find_notebook('steps/ingest'), tmp_path/'out.ipynb', params, kernel_name='python3',
                               language='python', progress_bar=False)
    readings, hard = pd.read_csv(tmp_path/'run'/'readings.csv'), pd.read_csv(tmp_path/'run'/'difficulty.csv')
    cases, views = (pd.read_parquet(tmp_path/'run'/f'{o}.parquet') for o in ('cases', 'views'))
    assert len(cases) == 5 and len(views) == 10 and set(views.split) == set(cases.split) == {'test'}
    assert set(readings.study) == set(hard.study) == set(cases.study) and len(readings) == 20
    types = pd.read_csv(tmp_path/'run'/'types.csv') # the truth that a synthetic hospital has, and no real one
    assert set(types.study) == set(cases.study[cases.label == 1]) and len(types)
    assert json.loads((tmp_path/'run'/'record.json').read_text())['synthetic']
    written = [*(tmp_path/'run').glob('*.csv'), *(tmp_path/'run').glob('*.json'), tmp_path/'out.ipynb']
    left = ''.join(p.read_text() for p in written)
    assert not any(o in left for o in original)
