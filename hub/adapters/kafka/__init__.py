"""Kafka, through aiokafka's connections, protocol and record batches."""
