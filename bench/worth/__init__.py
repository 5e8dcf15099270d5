"""Is what mlade keeps worth more than a random sample: data, ways to choose, and learning from what was chosen."""
