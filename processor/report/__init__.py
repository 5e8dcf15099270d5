"""What a replay's report is made of: figures collected while it runs, drawn on one page that needs nothing else."""
