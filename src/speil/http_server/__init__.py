"""What guards a port that speaks HTTP: places for connections, deadlines, and one line for what is no request."""
