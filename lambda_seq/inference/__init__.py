"""From raw inputs to answers: how texts, pictures and clips become what a saved network takes, and what it says."""
