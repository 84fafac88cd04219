"The metrics against independent implementations, and what a paper says against what we carry"
import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get('RADINET_DATA', Path(__file__).parents[1]/'..'/'shared'/'data'))


def test_published_values_are_the_shared_ones():
    from radinet_nb.report.published import read_published
    shared = DATA.parent/'published'/'published.csv'
    if not shared.exists(): pytest.skip(f'no {shared.name} beside the shared data: nothing to compare the package copy with')
    import pandas as pd
    pd.testing.assert_frame_equal(read_published(), pd.read_csv(shared, keep_default_na=False))
