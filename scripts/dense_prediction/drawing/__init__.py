"""Pictures of predictions and of ground truth, for every task and for pictures of every size."""
