"""Every encoder and control in the language model under one budget: one table, one verdict."""
