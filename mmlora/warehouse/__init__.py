"""The warehouse: scores that ranking jobs can trust, on SQLite, PostgreSQL or DuckDB.

Rows of a load are written first and a pointer moves last, in one transaction; readers follow the pointer
through the views, and so never see half a load. :class:`mmlora.warehouse.warehouse.Warehouse` is the door.
"""
