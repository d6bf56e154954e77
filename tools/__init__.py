"""What the Makefile runs: set-up, generation, demonstration."""
