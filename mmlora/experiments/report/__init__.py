"""Reports of experiments, as Markdown and one HTML page: what was found, how sure that is, pictures of it."""
