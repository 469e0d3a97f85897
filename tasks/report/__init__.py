"""What a fit says when it ends: advice in words, and a page to look at, in one file that needs nothing else."""
