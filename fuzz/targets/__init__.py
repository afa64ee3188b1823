"""What is fuzzed. A target runs one input after another and raises Finding when one breaks a promise."""
