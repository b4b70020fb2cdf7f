"""A DAG of a ranking team: as soon as scores of its domains are published, write each user's first items.

Copy it into your own DAG folder and change the three constants; mmlora's own DAGs don't include it. It needs
mmlora and the warehouse (``MMLORA_WAREHOUSE_URL``), and neither data, model nor workspace.
"""

import os
from pathlib import Path

from airflow.sdk import Asset, AssetAny, dag, task

DOMAINS = ("comedy", "drama")
FIRST = 20
FOLDER = Path(os.environ.get("RANKING_LISTS", "ranking_lists"))

ASSETS = {f"mmlora_scores_{domain}": domain for domain in DOMAINS}


@dag(schedule=AssetAny(*map(Asset, ASSETS)), catchup=False, max_active_runs=1)
def ranking_lists():
    """Write lists of the domains that have just been published.

    With ``AssetAny`` a domain's lists are refreshed though another domain failed; to wait for all of them,
    use ``AssetAll``.
    """

    @task
    def fresh(triggering_asset_events=None):
        """Return domain and date of what was published; of several events of a domain, the last counts."""
        events = {domain: triggering_asset_events[Asset(name)] for name, domain in ASSETS.items()}
        return [{"domain": domain, "date": some[-1].extra["date"]} for domain, some in events.items() if some]

    @task(map_index_template="{{ task.op_kwargs['domain'] }}", retries=3)
    def write(domain, date):
        """Read the domain's published scores of the date, and write FOLDER/domain/date.parquet."""
        from datetime import date as day

        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from mmlora import read_scores

        path = FOLDER / domain / f"{date}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        columns = ["user_id", "position", "item_id", "score"]
        with read_scores(domain, on=day.fromisoformat(date)) as reader:
            schema = reader.schema.empty_table().select(columns).schema
            with pq.ParquetWriter(unfinished, schema) as file:
                for batch in reader:  # never the whole night in memory
                    file.write_batch(batch.filter(pc.field("position") <= FIRST).select(columns))
        unfinished.replace(path)  # readers of the folder never see half a file
        return str(path)

    write.expand_kwargs(fresh())


ranking_lists()
