"""What HTML reports share: the page, its tables, and plots drawn with matplotlib."""
