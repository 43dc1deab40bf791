"""How good the search, the measurement and the generator are, against known truths and peers."""
