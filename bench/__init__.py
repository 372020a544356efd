"""`make bench`: measure the worker and other programs on one machine in one run."""
