"""`make bench`: how fast the worker is, beside what else one could have written, on one machine in one run."""
