"""What happens at a training's steps and epochs: checkpoints, reports, predictions, averages."""
