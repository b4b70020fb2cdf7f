"""One file a verb: each takes ids and dates, wires the rooms together, and returns ids.

The command line, an Airflow task and a test call the same functions; every one finds its workspace through
the settings, and may be run again with the same result.
"""
