"What must stay on one side of a split: sequences of FracAtlas, published test parts"
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.data.collections import read_collection
from radinet_nb.data.fracatlas import fracatlas_parts, fracatlas_views, read_fracatlas
from radinet_nb.data.fracatlas_groups import fracatlas_groupings, group_images, image_numbers, torn_pairs
from radinet_nb.data.guard import check_disjoint
from radinet_nb.data.notebooks import run_alone
from radinet_nb.data.runs import load_run
from radinet_nb.data.studies import read_studies, split_studies, study_table, write_studies
from radinet_nb.errors import InputError

DATA = Path(os.environ.get('RADINET_DATA') or Path(__file__).resolve().parents[2]/'shared'/'data')
FLAGS = [*fracatlas_parts, *fracatlas_views]


def atlas_rows(ids, parts, views):
    "As much of dataset.csv as groups look at: one flag of parts and one of views a row"
    rows = pd.DataFrame(0, index=range(len(ids)), columns=FLAGS)
    for i, (p, v) in enumerate(zip(parts, views, strict=True)):
        rows.loc[i, [fracatlas_parts[p], fracatlas_views[v]]] = 1
    return rows.assign(image_id=[f'IMG{i:07}.jpg' for i in ids], dupgroup=range(len(ids)))


def as_studies(table):
    part = table[[*fracatlas_parts]].idxmax(axis=1)
    return study_table(table[['patient', *(['split_unit'] if 'split_unit' in table else [])]].assign(
        study=table.image_id.str[:-4], path='/x/' + table.image_id, body_part=part, label=np.arange(len(table)) % 2))


@pytest.mark.parametrize('seed', range(4))
def test_a_split_by_sequence_or_block_tears_no_neighbors_apart(seed):
    "Whatever stands next to whatever: images of one part in a row are on one side, no view repeats in a sequence"
    rng = np.random.default_rng(seed)
    images = list(zip(rng.integers(0, 4, 90), rng.integers(0, 3, 90), rng.random(90) < .2, strict=True))
    ids = np.cumsum([2 if gap else 1 for *_, gap in images])
    table = atlas_rows(ids, [p for p, *_ in images], [v for _, v, _ in images])
    for grouping in 'sequence', 'block':
        grouped = group_images(table, grouping, fracatlas_parts, fracatlas_views, block=8)
        if grouping == 'sequence': assert (grouped.groupby('patient')[[*fracatlas_views]].sum() <= 1).all(axis=None)
        studies = as_studies(grouped)
        split = split_studies(studies, (.6, .2, .2), seed)
        assert torn_pairs(split)['torn'] == 0
        check_disjoint(split)


def test_copies_join_sequences_and_the_order_of_the_rows_is_nothing():
    table = atlas_rows([0, 1, 2, 3, 9, 10], [0]*6, [0, 1, 0, 1, 0, 1]).assign(dupgroup=[0, 1, 2, 3, 4, 0])
    grouped = group_images(table, 'sequence', fracatlas_parts, fracatlas_views)
    names = grouped.patient.tolist()
    assert names[0] == names[1] == names[4] == names[5] != names[2] == names[3]
    assert grouped.split_unit.nunique() == 1
    back = table[::-1].reset_index(drop=True)
    again = group_images(back, 'sequence', fracatlas_parts, fracatlas_views)
    def blocks(t): return {frozenset(g) for _, g in t.groupby('patient').image_id}
    assert blocks(again) == blocks(grouped)


@pytest.mark.parametrize('grouping', fracatlas_groupings)
def test_real_fracatlas_by_each_grouping(grouping):
    folder = DATA/'fracatlas'
    if not folder.is_dir(): pytest.skip('FracAtlas is not here: RADINET_DATA names the folder that holds it')
    reading = read_fracatlas(folder, grouping=grouping)
    split = split_studies(reading.studies, (.6, .15, .25))
    torn = torn_pairs(split)
    assert set(reading.studies.grouping) == {grouping}
    if grouping in ('sequence', 'block'):
        assert (torn['torn'], torn['with_mate'], 'warning' in reading.account) == (0, 0, False)
        assert reading.studies.groupby('dupgroup').patient.nunique().max() == 1
    else: assert torn['with_mate'] > torn['fractured_test']*.5 and 'scores are too high' in reading.account['warning']
    assert {'hardware', 'multiscan', *fracatlas_views} <= set(split)


def test_a_name_without_a_number_is_refused_in_one_line():
    with pytest.raises(InputError, match='row 1, column image_id: ends in no number') as e:
        image_numbers(pd.Series(['IMG1.jpg', 'Roe.jpg']))
    assert 'Roe' not in str(e.value)


def test_a_split_unit_is_kept_on_disk_and_guarded(tmp_path):
    table = as_studies(group_images(atlas_rows(range(40), [0]*20 + [1]*20, [0]*40), 'sequence', fracatlas_parts,
                                    fracatlas_views))
    assert (table.patient.nunique(), table.split_unit.nunique()) == (40, 2)
    with pytest.raises(InputError, match='2 patients cannot fill 3 splits'): split_studies(table)
    split = split_studies(table, (.5, 0, .5))
    again = read_studies(write_studies(split, tmp_path/'studies.parquet'))
    assert again.split_unit.tolist() == split.split_unit.tolist()
    torn = again.assign(split=['train', *again.split[1:]] if again.split[0] == 'test' else ['test', *again.split[1:]])
    with pytest.raises(InputError, match='1 split_unit on two sides'): check_disjoint(torn)
    part = torn.drop(columns='split_unit') # the chain's other table does not know the units
    with pytest.raises(InputError, match='1 patient on two sides'): check_disjoint(again, part)


def tiny_mura(root):
    "MURA's layout: 20 patients in train, 8 in valid"
    rng = np.random.default_rng(0)
    for part, first, n in ('train', 1, 20), ('valid', 101, 8):
        images, labels = [], []
        for p in range(first, first+n):
            folder = f"MURA-v1.1/{part}/XR_WRIST/patient{p:05}/study1_{'positive' if p % 2 else 'negative'}/"
            (root/folder).mkdir(parents=True)
            Image.fromarray(rng.integers(0, 255, (24, 20), dtype=np.uint8)).save(root/folder/'image1.png')
            images.append(f'{folder}image1.png'); labels.append(f'{folder},{p % 2}')
        (root/'MURA-v1.1'/f'{part}_image_paths.csv').write_text('\n'.join(images))
        (root/'MURA-v1.1'/f'{part}_labeled_studies.csv').write_text('\n'.join(labels))
    return root/'MURA-v1.1'


@pytest.mark.parametrize('keep', [True, False])
def test_the_published_test_part_of_mura_stays_the_test(tmp_path, keep, warm_kernels):
    run = load_run(run_alone('steps/ingest', data=dict(mura=str(tiny_mura(tmp_path))), pixels=16,
                             shares=[.75, .25, 0] if keep else [.5, .25, .25], published_split=keep))
    views = run.table('views.parquet')
    published = views.path.str.contains('/valid/')
    assert run.record['published_splits'] == (['mura'] if keep else [])
    if keep:
        assert (views.split[published] == 'test').all() and set(views.split[~published]) == {'train', 'valid'}
        assert (views.split[~published] == 'valid').sum() == 5
    else: assert 'train' in set(views.split[published])


def test_the_record_warns_of_a_grouping_that_tears_patients(tmp_path, warm_kernels):
    for i in range(8): Image.new('L', (20, 20)).save(tmp_path/f"IMG{i}.jpg")
    for kind, ids in dict(Fractured=range(4), Non_fractured=range(4, 8)).items():
        (tmp_path/'atlas'/'images'/kind).mkdir(parents=True)
        for i in ids: (tmp_path/f'IMG{i}.jpg').rename(tmp_path/'atlas'/'images'/kind/f'IMG{i}.jpg')
    table = atlas_rows(range(8), [0, 0, 1, 1]*2, [0, 1]*4).assign(image_id=[f'IMG{i}.jpg' for i in range(8)])
    table.assign(fractured=[1]*4 + [0]*4, hardware=[1] + [0]*7, multiscan=0).to_csv(tmp_path/'atlas'/'dataset.csv')
    with pytest.raises(InputError, match='has no coco annotations'): read_collection('fracatlas', tmp_path/'atlas')
    (tmp_path/'atlas'/'Annotations'/'COCO JSON').mkdir(parents=True)
    (tmp_path/'atlas'/'Annotations'/'COCO JSON'/'COCO_fracture_masks.json').write_text(
        '{"images": [], "annotations": []}')
    assert set(read_collection('fracatlas', tmp_path/'atlas').studies.grouping) == {'sequence'}
    run = load_run(run_alone('steps/ingest', grouping='dupgroup', data=dict(fracatlas=str(tmp_path/'atlas')), pixels=16,
                             shares=[.5, 0, .5]))
    assert run.record['groupings'] == dict(fracatlas=['dupgroup'])
    assert run.record['warnings'][0].startswith('fracatlas, grouping dupgroup: consecutive images')
    assert run.table('views.parquet').hardware.tolist() == [1] + [0]*7
