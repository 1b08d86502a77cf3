"""Logs, redaction, the output of models, the audit log, histograms."""
