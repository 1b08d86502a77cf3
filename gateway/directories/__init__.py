"""Find, recognise and describe model directories before any of their code runs."""
