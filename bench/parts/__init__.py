"""What is measured: one file each, with a function `measure(size, folder, tell) -> Result`."""
