"""What the experiments found, on a terminal, on a page and as numbers in files."""
