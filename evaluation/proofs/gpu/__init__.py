"""What only a GPU can show, in one table: `python -m evaluation.proofs.gpu` (`make gpu`)."""
