"""Stream processing in Python: YAML pipelines, event-time windows, RocksDB state, exactly-once on Kafka."""

__version__ = "0.1.0"
