"The synthetic room: physics, boxes, determinism, and no shortcuts"
import numpy as np
import pytest

from radinet_nb.synthetic.fractures import break_limb
from radinet_nb.synthetic.hospital import write_hospital
from radinet_nb.synthetic.limbs import make_limb
from radinet_nb.synthetic.phantom import camera_for, fracture_box, radiograph


@pytest.mark.parametrize('part', 'finger hand wrist forearm elbow humerus shoulder'.split())
@pytest.mark.parametrize('age', [.3, 6, 40])
def test_every_part_at_every_age(part, age):
    limb = make_limb(part, age, 'F', seed=3)
    for view in ('frontal', 'lateral'):
        im = radiograph(limb, camera_for(limb, view, 96))
        assert im.shape[0]==96 and 0<=im.min() and im.max()<=1 and im.std()>.05


@pytest.mark.parametrize('kind', 'hairline gap step angulated impacted comminuted buckle greenstick avulsion'.split())
def test_box_holds_all_that_changed(kind):
    limb = make_limb('wrist', 40, seed=1)
    break_limb(limb, seed=1, kind=kind, site='radius')
    seen = 0
    for view in ('frontal', 'lateral'):
        cam = camera_for(limb, view, 192)
        diff = np.abs(radiograph(limb, cam)-radiograph(limb, cam, broken=False))
        for x0, y0, x1, y1 in fracture_box(limb, cam): diff[y0-2:y1+2, x0-2:x1+2] = 0; seen += 1
        assert diff.max()<.02
    assert seen


def test_jobs_change_no_byte(tmp_path):
    write_hospital(tmp_path/'a', patients=24, pixels=48)
    write_hospital(tmp_path/'b', patients=24, pixels=48, jobs=2)
    for p in (tmp_path/'a').rglob('*'):
        if p.is_file(): assert p.read_bytes()==(tmp_path/'b'/p.relative_to(tmp_path/'a')).read_bytes()
