"""Text to predict, token by token."""
