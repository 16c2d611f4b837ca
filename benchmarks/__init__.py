"""Speed and memory of the product on synthetic districts, as ratios taken in one run. Never part of the test suite."""
