"""Speed and memory of the product with generated districts, as ratios within one run. Not part of the test suite."""
