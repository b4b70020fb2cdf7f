"""The command line: parse arguments, call one verb of the pipeline, print its result."""
