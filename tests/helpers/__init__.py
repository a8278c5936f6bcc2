"""What several tests import; it holds no tests."""
