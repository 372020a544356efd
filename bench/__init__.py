"""`make bench`: measure how fast the worker is, beside other programs, on one machine in one run."""
