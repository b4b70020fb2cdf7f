"""Is the made-up shop as hard as it is meant to be, for what a user would try first?"""

from __future__ import annotations

from pathlib import Path

import pytest

from mmlora.data.shop import ShopDials
from mmlora.data.shop_files import write_shop
from mmlora.data.shop_truth import ShopTruth
from mmlora.metrics import domain_metrics
from tests.benchmarks.quality_competitors import Columns, Rows, fit


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lightgbm_is_far_above_item_ctr_and_far_below_the_truth(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    dials = ShopDials(seed=1)
    write_shop(tmp_path, dials)
    truth, columns = ShopTruth.make(dials), Columns(tmp_path)
    late = truth.impressions.day == dials.days
    rows, label = Rows.of(truth.impressions, late), truth.impressions.label[late]
    wauc = {
        model: domain_metrics(label, fit(model, truth, columns)(rows), rows.market).wauc
        for model in ("item CTR by market", "LightGBM")
    }
    wauc["truth"] = domain_metrics(label, truth.impressions.probability[late], rows.market).wauc
    assert wauc == {
        "item CTR by market": pytest.approx(0.735, abs=0.02),
        "LightGBM": pytest.approx(0.81, abs=0.02),
        "truth": pytest.approx(0.865, abs=0.015),
    }
