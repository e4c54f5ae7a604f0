"""What happens to a batch: state, step, optimizer, checkpoints, sharding and the loop."""
