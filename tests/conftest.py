"""What all tests share."""

import signal

# A shell that starts the tests in the background lets them, and all that they start, ignore SIGINT: heed it again.
signal.signal(signal.SIGINT, signal.default_int_handler)
