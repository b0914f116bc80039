"""Data sets in TRL's conversational columns. Each gives `load(view, split, tokenizer)`."""
