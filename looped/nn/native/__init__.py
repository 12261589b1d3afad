"""A transformer block and its gradient in C++, compiled for this processor."""
