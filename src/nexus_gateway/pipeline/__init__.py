"""The journey of a request: authenticate, admit, screen, execute. Knows protocols, no server and no adapter."""
