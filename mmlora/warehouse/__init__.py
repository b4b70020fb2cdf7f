"""The warehouse: published scores for ranking jobs, on SQLite, PostgreSQL or DuckDB.

The rows of a load are written first, and a pointer is moved last, in one transaction. Readers follow the
pointer through the views and so never see half a load. The interface is
:class:`mmlora.warehouse.warehouse.Warehouse`.
"""
