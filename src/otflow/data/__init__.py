"""Tables on their way to a flow: frames, columns, scalers, rows, batches, shards, streams."""
