"""The commands, one module per command: each takes ids and dates, calls the other packages, and returns ids.

The command line, Airflow tasks and tests call the same functions. Each function finds its workspace through
the settings and can be repeated with the same result.
"""
