"""The test kit of this repository; it is not part of the wheel."""
