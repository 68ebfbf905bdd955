"""Queries in Flink's dialect as steps: a translation of text, over the columns of the streams it names."""
