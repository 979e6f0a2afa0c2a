"""Inner loop: update rules and the one function that unrolls them."""
