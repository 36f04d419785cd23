"""The fifteen features on the Handbook's own transactions, against pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.matrix import build_matrix
from transforms.durations import DAY
from transforms.features import load_feature_set

DATA = Path(__file__).parents[3] / "shared" / "data" / "handbook_2018-04-01_2018-09-04.parquet"


def pandas_features(frame: pd.DataFrame) -> pd.DataFrame:
    """The Handbook's features by rolling windows: what its chapter 3 computes, in a few plain lines."""
    time, out = frame.event_time, pd.DataFrame({"id": frame.transaction_id})
    out["amount"] = frame.amount
    out["weekend"] = (time.dt.day_of_week >= 5).astype(float)
    out["night"] = (time.dt.hour <= 6).astype(float)
    rolling = frame.set_index("event_time").groupby("customer_id", sort=False).amount
    for days in (1, 7, 30):
        window = rolling.rolling(f"{days}D")
        # groupby().rolling() gives the groups one after another, each in its own order
        place = frame.groupby("customer_id", sort=False).indices
        rows = np.concatenate([place[key] for key in frame.customer_id.unique()])
        out.loc[rows, f"customer_count_{days}d"] = window.count().to_numpy()
        out.loc[rows, f"customer_amount_mean_{days}d"] = window.mean().to_numpy()
    rolling = frame.set_index("event_time").groupby("terminal_id", sort=False).is_fraud
    place = frame.groupby("terminal_id", sort=False).indices
    rows = np.concatenate([place[key] for key in frame.terminal_id.unique()])
    late_count, late_frauds = rolling.rolling("7D").count().to_numpy(), rolling.rolling("7D").sum().to_numpy()
    for days in (1, 7, 30):
        window = rolling.rolling(f"{days + 7}D")
        count = window.count().to_numpy() - late_count
        frauds = np.round(window.sum().to_numpy() - late_frauds)
        out.loc[rows, f"terminal_count_{days}d_delay_7d"] = count
        out.loc[rows, f"terminal_risk_{days}d_delay_7d"] = np.divide(
            frauds, count, out=np.zeros_like(count), where=count > 0
        )
    return out


@pytest.mark.skipif(not DATA.exists(), reason="the Handbook's transactions are not part of the project")
def test_every_feature_of_every_transaction_equals_pandas() -> None:
    """Counts and risks are equal to the bit and means to 1e-9, on all 1,504,628 rows."""
    features = load_feature_set("handbook")
    ours = build_matrix(str(DATA), "handbook", features, 7 * DAY).to_pandas()
    ours["id"] = ours.transaction_id.astype("int64")
    source: Any = pd.read_parquet(DATA)
    frame = pd.DataFrame(
        {
            "transaction_id": source.TRANSACTION_ID,
            "event_time": source.TX_DATETIME,
            "customer_id": source.CUSTOMER_ID,
            "terminal_id": source.TERMINAL_ID,
            "amount": source.TX_AMOUNT,
            "is_fraud": source.TX_FRAUD,
        }
    ).sort_values(["event_time", "transaction_id"], ignore_index=True)
    expected = pandas_features(frame).sort_values("id", ignore_index=True)
    found = ours.sort_values("id", ignore_index=True)
    assert len(found) == len(frame) == 1_504_628
    np.testing.assert_array_equal(found.id, expected.id)
    for name in features.names:
        tolerance = 0.0 if "count" in name or "risk" in name else 1e-9  # the file has amounts like 87.69999999999999
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance, err_msg=name)
